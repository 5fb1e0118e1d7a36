package recipe

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/hostcmd"
)

// What mmdebstrap 1.3.5 says, shortened.
const mmdebstrapSays = `I: finding correct signed-by value...
I: running apt-get update...
Get:1 http://mirror.example/debian bookworm InRelease [151 kB]
I: downloading packages with apt...
0 upgraded, 2 newly installed, 0 to remove and 1 not upgraded.
I: extracting archives...
I: installing essential packages...
Unpacking libc6 (2.36) ...
Unpacking dpkg (1.21) ...
Setting up libc6 (2.36) ...
Setting up dpkg (1.21) ...
1 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.
I: installing remaining packages inside the chroot...
0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
Unpacking git (2.39) ...
Setting up git (2.39) ...
I: cleaning package lists and apt cache...
I: success in 75.9608 seconds
`

func TestWatcher(t *testing.T) {
	var got []string
	w := &watcher{p: func(detail string, done, total int64) {
		got = append(got, fmt.Sprintf("%s %d/%d", detail, done, total))
	}}
	for line := range strings.Lines(mmdebstrapSays) {
		w.line(strings.TrimSuffix(line, "\n"))
	}
	want := []string{
		"reading package lists 0/0", "downloading essential packages 0/0", "unpacking essential packages 0/0", "installing essential packages 0/0",
		"installing essential packages 1/4", "installing essential packages 2/4", "installing essential packages 3/4", "installing essential packages 4/4",
		"installing packages 0/0", "installing packages 1/2", "installing packages 2/2", "cleaning up 0/0",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("progress (-want +got):\n%s", d)
	}
}

func TestExplain(t *testing.T) {
	failed := &hostcmd.ExitError{Argv: []string{"unshare"}, Code: 25, Stderr: "I: removing tempdir\nE: mmdebstrap failed to run"}
	for _, tt := range []struct{ says, want string }{
		{"I: running apt-get update...\nE: Unable to locate package nonesuch\nE: run_chroot failed: E: exit\n", "mmdebstrap, reading package lists: Unable to locate package nonesuch"},
		{"E: something else\ndpkg: error: No space left on device\n", "mmdebstrap, : dpkg: error: No space left on device"},
		{"", failed.Error()},
	} {
		w := &watcher{p: func(string, int64, int64) {}}
		for line := range strings.Lines(tt.says) {
			w.line(strings.TrimSuffix(line, "\n"))
		}
		if got := w.explain(failed).Error(); got != tt.want {
			t.Errorf("explain = %q, want %q", got, tt.want)
		}
	}
	other := errors.New("other")
	if got := (&watcher{}).explain(other); got != other {
		t.Errorf("explain(other) = %v", got)
	}
}
