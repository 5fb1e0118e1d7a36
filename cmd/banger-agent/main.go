// Banger-agent runs in the guest: as the first process of its initramfs, as a
// service under the image's init, and as PID 1 where the image has none.
package main

import (
	"os"

	"banger/internal/agent"
)

func main() { os.Exit(agent.Main(os.Args)) }
