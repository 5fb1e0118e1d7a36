//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Hit returns an error, or does not return, if the environment says so for
// this point.
func Hit(name string) error {
	for _, p := range strings.Split(os.Getenv("BANGER_FAILPOINTS"), ",") {
		point, do, _ := strings.Cut(p, "=")
		if point != name {
			continue
		}
		if do == "crash" {
			// As kill -9 does: no deferred function runs, nothing is flushed.
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return fmt.Errorf("failpoint %s", name)
	}
	return nil
}
