package store

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"banger/internal/vm"
)

// The test binary is also the process to be killed: it creates and starts
// machines until then, and tells the name of each that is recorded.
func TestMain(m *testing.M) {
	path := os.Getenv("BANGER_STORE_HELPER")
	if path == "" {
		// Under the race detector SQLite is slow; the command line may ask
		// for more.
		if err := flag.Set("rapid.checks", "10"); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	ctx := context.Background()
	s, err := Open(path, options())
	for n := 0; err == nil && n < 900; n++ {
		var v vm.VM
		if v, err = s.Create(ctx, machine(fmt.Sprintf("r%s-m%d", os.Getenv("BANGER_STORE_ROUND"), n))); err != nil {
			break
		}
		if _, err = s.Change(ctx, v.ID, vm.Change{To: vm.Starting}); err == nil {
			fmt.Println(v.Name)
		}
	}
	fmt.Fprintln(os.Stderr, "nobody killed it:", err)
	os.Exit(1)
}
