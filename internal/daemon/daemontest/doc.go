// Package daemontest gives a daemon everything but a host: mechanisms that
// behave like the real ones and touch nothing but a directory.
//
// A pretend host's VMM processes outlive a daemon that is dropped without
// being closed, so a test can kill the daemon at any point and open the next.
package daemontest
