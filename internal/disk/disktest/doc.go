// Package disktest holds the suites that every [disk.Layers] and [disk.Work]
// must pass, and fakes of both that pass them.
//
// The fakes make small real files in the layer's directory, so that a test
// which looks for what is left finds it.
package disktest
