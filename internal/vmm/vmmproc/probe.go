package vmmproc

import (
	"os"
	"sync"
)

// Probe keeps what a program says of itself, for as long as it is the same
// file. The zero value has asked nobody. It may be used concurrently.
type Probe[T any] struct {
	mu   sync.Mutex
	last probed[T] // guarded by mu
}

type probed[T any] struct {
	path   string
	info   os.FileInfo // nil: nothing was probed yet
	answer T
}

// Of returns what ask says of the program at path, which is asked if that is
// not known. Two calls at once may both ask. An error is not kept.
func (p *Probe[T]) Of(path string, ask func() (T, error)) (answer T, err error) {
	fi, err := os.Stat(path)
	if err != nil {
		return answer, err
	}
	p.mu.Lock()
	last := p.last
	p.mu.Unlock()
	if last.info != nil && last.path == path && os.SameFile(last.info, fi) && last.info.ModTime().Equal(fi.ModTime()) {
		return last.answer, nil
	}
	// Not under the lock: it starts programs.
	if answer, err = ask(); err != nil {
		var none T
		return none, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = probed[T]{path, fi, answer}
	return answer, nil
}
