package lifecycle_test

import (
	"context"
	"strings"
	"testing"

	"banger/internal/errkind"
	"banger/internal/lifecycle"
	"banger/internal/template/templatefs"
	"banger/internal/vm"
)

func (l *life) setAside(id, why string) {
	l.t.Helper()
	lib, err := templatefs.Open(l.paths.Templates())
	if err == nil {
		err = lib.SetAside(context.Background(), id, why)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// How a machine begins is as its caller wants, where that can be.
func TestFrom(t *testing.T) {
	l := newWarm(t)
	ctx := context.Background()
	create := func(name string, from lifecycle.From) (vm.VM, error) {
		return l.Create(ctx, lifecycle.Request{Name: name, Spec: small, From: from}, nobody)
	}
	_, err := create("early", lifecycle.FromTemplate)
	if errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "there is no template for such a machine of image tiny") {
		t.Errorf("FromTemplate without one = %v", err)
	}
	want := "banger vm run --image tiny --kernel fake --vcpus 1 --memory 64M --disk-size 8192M --network nat --driver fake -- true"
	if h := errkind.Hints(err); len(h) != 1 || h[0] != want {
		t.Errorf("its hints are %q, want %q", h, want)
	}
	l.nothingLeft("after there was no template")
	if _, err := create("odd", "lake"); errkind.Of(err) != errkind.Usage {
		t.Errorf("From %q = %v", "lake", err)
	}

	x := l.makeTemplate()
	for from, id := range map[lifecycle.From]string{
		lifecycle.FromAny: x.ID, lifecycle.FromTemplate: x.ID, lifecycle.FromBoot: "",
	} {
		v, err := create("web"+string(from), from)
		if err != nil {
			t.Fatal(err)
		}
		if v.Template != id {
			t.Errorf("from %q it stands on template %q, want %q", from, v.Template, id)
		}
		mustStart(t, l, v)
		s, _ := l.w.VMM.Spec(string(v.ID))
		if restored := s.Restore != nil; restored != (id != "") {
			t.Errorf("from %q: restored = %t", from, restored)
		}
	}

	l.setAside(x.ID, "it is odd")
	_, err = create("late", lifecycle.FromTemplate)
	if errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "is damaged: it is odd") {
		t.Errorf("FromTemplate with one that is damaged = %v", err)
	}
}

// Where there are no templates at all, one that needs one is refused.
func TestFromWithoutTemplates(t *testing.T) {
	l := newLife(t)
	_, err := l.Create(context.Background(), lifecycle.Request{Name: "web", Spec: small, From: lifecycle.FromTemplate}, nobody)
	if errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "turned off") {
		t.Errorf("Create = %v", err)
	}
	if _, err := l.EnsureTemplate(context.Background(), small, nobody); errkind.Of(err) != errkind.Host {
		t.Errorf("EnsureTemplate = %v", err)
	}
	l.nothingLeft("after both")
}

// A template is made once, whoever asks, also after it could not be.
func TestEnsureTemplate(t *testing.T) {
	l := newWarm(t)
	ctx := context.Background()
	l.w.SetFail(func(op string) error {
		if strings.HasPrefix(op, "before launch") {
			return errBoom
		}
		return nil
	})
	if _, err := l.EnsureTemplate(ctx, small, nobody); err == nil {
		t.Error("EnsureTemplate where no VMM starts = nil")
	}
	l.w.SetFail(nil)
	l.nothingLeft("after it failed")

	type result struct {
		id  string
		err error
	}
	results := make(chan result)
	for range 3 {
		go func() {
			x, err := l.EnsureTemplate(ctx, small, nobody)
			results <- result{x.ID, err}
		}()
	}
	first := <-results
	for range 2 {
		if r := <-results; r != first || r.err != nil || r.id == "" {
			t.Errorf("EnsureTemplate = %v and %v", first, r)
		}
	}
	l.nothingLeft("after it was made")
	// It is that of machines that are asked for in the same way.
	if v := l.createSmall("web", small); v.Template != first.id {
		t.Errorf("a machine stands on %q, want %q", v.Template, first.id)
	}
	l.setAside(first.id, "it is odd")
	if _, err := l.EnsureTemplate(ctx, small, nobody); errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "it is odd") {
		t.Errorf("EnsureTemplate of one that is damaged = %v", err)
	}
}

// Whoever does not want to wait for a template any more has not to.
func TestEnsureTemplateGivenUp(t *testing.T) {
	l := newWarm(t)
	ctx, cancel := context.WithCancel(context.Background())
	stage := func(name, _ string, _, _ int64) {
		if strings.HasPrefix(name, "boot ") {
			cancel()
		}
	}
	if _, err := l.EnsureTemplate(ctx, small, stage); err == nil {
		t.Error("EnsureTemplate = nil")
	}
	l.nothingLeft("after it was given up")
	if _, err := l.EnsureTemplate(context.Background(), small, nobody); err != nil {
		t.Errorf("EnsureTemplate then = %v", err)
	}
}
