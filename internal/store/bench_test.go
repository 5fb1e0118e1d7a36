package store

import (
	"fmt"
	"testing"

	"banger/internal/vm"
)

func BenchmarkChange(b *testing.B) {
	s := newStore(b, options())
	v := mustCreate(b, s, machine("web"))
	states := []vm.State{vm.Paused, vm.Running} // SQLite does not write what is so already
	for n := 0; b.Loop(); n++ {
		if _, err := s.Change(b.Context(), v.ID, vm.Change{To: states[n%2], Found: true}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateDelete(b *testing.B) {
	s := newStore(b, options())
	for b.Loop() {
		v := mustCreate(b, s, machine("web"))
		if err := s.Delete(b.Context(), v.ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	s := newStore(b, options())
	mustCreate(b, s, machine("web"))
	for b.Loop() {
		if _, err := s.Resolve(b.Context(), "web"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, err := Open(filled(b, n), options())
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			for b.Loop() {
				if vs, err := s.List(b.Context()); err != nil || len(vs) != n {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := filled(b, n)
			for b.Loop() {
				s, err := Open(path, options())
				if err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}
