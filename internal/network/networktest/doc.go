// Package networktest holds the suite that every [network.Network] must pass,
// and a fake host whose networks pass it without any.
package networktest
