// SPDX-License-Identifier: Apache-2.0

package loadertest

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/alloc/alloctest"
	"github.com/tenon-build/tenon/loader/control"
)

// Survivor is a Backend that takes its CPUs offline, and whose instances are there until
// they are given back, whoever forgets them. Its Target must be set.
type Survivor struct {
	Backend
	Host *alloctest.Kernel // that CPUs are taken from

	Stuck error // of what gives back, which then does not
	Blind error // of Alive

	mu       sync.Mutex
	machines map[string]*taken
	handles  []*survivor
}

// taken is a machine, and what it has of the host.
type taken struct {
	*machine
	cpus alloc.CPUSet
}

var _ loader.Survivor = (*Survivor)(nil)

// Can implements loader.Backend.
func (b *Survivor) Can() loader.Capabilities {
	c := b.Backend.Can()
	c.Offline = true
	return c
}

// Load implements loader.Backend.
func (b *Survivor) Load(_ context.Context, v *loader.Verified, c loader.Config) (loader.Instance, error) {
	i, err := b.load(v, c)
	if err != nil {
		return nil, err
	}
	b.take(c.ID, &taken{i.machine, c.Plan.HeldCPUs()})
	return b.handle(i), nil
}

func (b *Survivor) handle(i *Instance) *survivor {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := &survivor{Instance: i, of: b}
	b.handles = append(b.handles, h)
	return h
}

// Forsake stands for the death of all supervisors: those that there are never hear of the
// end of their instances.
func (b *Survivor) Forsake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.handles {
		h.forsaken.Store(true)
	}
}

// take takes what a machine has, or gives it back where that is nil.
func (b *Survivor) take(id string, m *taken) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machines == nil {
		b.machines = map[string]*taken{}
	}
	b.machines[id] = m
	if m == nil {
		delete(b.machines, id)
	}
	var away alloc.CPUSet
	for _, m := range b.machines {
		away = away.Union(m.cpus)
	}
	b.Host.Away(away)
}

// find returns a machine that was loaded, or nil.
func (b *Survivor) find(id string) *machine {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.machines[id]; m != nil {
		return m.machine
	}
	return nil
}

// List implements loader.Survivor.
func (b *Survivor) List() ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.machines)), nil
}

// Alive implements loader.Survivor.
func (b *Survivor) Alive(id string) (bool, error) {
	m := b.find(id)
	if b.Blind != nil || m == nil || len(m.CPUs()) == 0 {
		return false, b.Blind
	}
	select {
	case <-m.end:
		return false, nil
	default:
		return true, nil
	}
}

// Attach implements loader.Survivor.
func (b *Survivor) Attach(ctx context.Context, c loader.Config) (loader.Instance, error) {
	if b.Slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if alive, err := b.Alive(c.ID); err != nil {
		return nil, err
	} else if !alive {
		return nil, fmt.Errorf("machine %s: %w", c.ID, fs.ErrNotExist)
	}
	return b.handle(&Instance{Config: c, backend: &b.Backend, machine: b.find(c.ID)}), nil
}

// Discard implements loader.Survivor.
func (b *Survivor) Discard(_ context.Context, id string) error {
	if b.Stuck != nil {
		return b.Stuck
	}
	if m := b.find(id); m != nil {
		m.End(&control.Exit{Signal: int(unix.SIGKILL)}, nil)
		b.take(id, nil)
	}
	return nil
}

// survivor is one of Survivor's.
type survivor struct {
	*Instance
	of       *Survivor
	forsaken atomic.Bool
}

// Wait implements loader.Instance.
func (i *survivor) Wait() (*control.Exit, error) {
	exit, err := i.Instance.Wait()
	if i.forsaken.Load() {
		select {}
	}
	return exit, err
}

// Resize implements loader.Instance.
func (i *survivor) Resize(ctx context.Context, p *alloc.Plan) error {
	if err := i.Instance.Resize(ctx, p); err != nil {
		return err
	}
	i.of.take(i.Config.ID, &taken{i.machine, p.HeldCPUs()})
	return nil
}

// Close implements loader.Instance.
func (i *survivor) Close() error { return i.of.Discard(context.Background(), i.Config.ID) }
