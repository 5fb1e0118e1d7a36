package lifecycle

import (
	"slices"
	"sync"
	"time"

	"banger/internal/vm"
)

// pool is what is known of the machines that wait.
type pool struct {
	one sync.Mutex // held while a machine is made for it

	mu    sync.Mutex
	waits map[string][]vm.ID   // ready to be claimed, by template; guarded by mu
	used  map[string]time.Time // when a machine of a template was last asked for; guarded by mu
}

func (p *pool) asked(template string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used == nil {
		p.used = make(map[string]time.Time)
	}
	p.used[template] = time.Now()
}

func (p *pool) count(template string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waits[template])
}

func (p *pool) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waits) == 0
}

func (p *pool) add(template string, id vm.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waits == nil {
		p.waits = make(map[string][]vm.ID)
	}
	p.waits[template] = append(p.waits[template], id)
}

// take takes the machine that has waited longest.
func (p *pool) take(template string) (id vm.ID, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waits := p.waits[template]
	if len(waits) == 0 {
		return "", false
	}
	p.waits[template] = waits[1:]
	if len(waits) == 1 {
		delete(p.waits, template)
	}
	return waits[0], true
}

// drop takes one machine.
func (p *pool) drop(template string, id vm.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waits := slices.DeleteFunc(p.waits[template], func(w vm.ID) bool { return w == id })
	if len(waits) > 0 {
		p.waits[template] = waits
	} else {
		delete(p.waits, template)
	}
}

// takeAll takes the machines of the templates that are chosen by when they were
// last asked for.
func (p *pool) takeAll(choose func(template string, used time.Time) bool) (ids []vm.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for template, waits := range p.waits {
		if choose(template, p.used[template]) {
			ids = append(ids, waits...)
			delete(p.waits, template)
		}
	}
	return ids
}
