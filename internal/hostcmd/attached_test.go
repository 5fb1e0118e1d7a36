package hostcmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"banger/internal/errkind"
)

func TestAttached(t *testing.T) {
	var out, errs bytes.Buffer
	code, err := Attached{
		Argv: []string{"sh", "-c", "cat; echo $A >&2; exit 42"}, Env: []string{"A=b"},
		Stdin: strings.NewReader("in"), Stdout: &out, Stderr: &errs,
	}.Run(t.Context())
	if code != 42 || err != nil || out.String() != "in" || errs.String() != "b\n" {
		t.Errorf("Run = %d, %v; it said %q, %q", code, err, out.String(), errs.String())
	}
	if code, err = (Attached{Argv: []string{"true"}}).Run(t.Context()); code != 0 || err != nil {
		t.Errorf("Run of true = %d, %v", code, err)
	}
	if _, err = (Attached{Argv: []string{"no-such-program"}}).Run(t.Context()); errkind.Of(err) != errkind.Host {
		t.Errorf("Run of nothing = %v", err)
	}
	if _, err = (Attached{Argv: []string{"sh", "-c", "kill -9 $$"}}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Run of a killed program = %v", err)
	}
}

// It is asked to end when the caller gives up, and in the caller's group.
func TestAttachedCancelled(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		if _, err := io.ReadFull(r, make([]byte, 6)); err != nil {
			t.Error(err)
		}
		cancel(why)
	}()
	_, err = Attached{Argv: []string{"sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done"}, Env: Env(), Stdout: w}.Run(ctx)
	w.Close()
	if !errors.Is(err, why) {
		t.Errorf("Run = %v", err)
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "bye\n" {
		t.Errorf("it was not asked: %q, %v", rest, err)
	}
}
