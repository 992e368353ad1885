// SPDX-License-Identifier: Apache-2.0

// Package loadertest is a back end for tests, which boots nothing: each instance is
// what a test makes of it.
package loadertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/control"
)

// Backend makes instances that end by SIGTERM with exit status 0, by other signals
// not at all, and print what is typed.
type Backend struct {
	Target  manifest.Target               // that bundles are built for; empty: qemu
	Lacks   loader.Capabilities           // what it cannot do, of all
	LoadErr error                         // of each Load
	Slow    bool                          // Start takes until its context ends
	Refuse  func(cpus alloc.CPUSet) error // of each Resize; may be nil
	Started func(*Instance)               // called by each Start; may be nil
}

// Name implements loader.Backend.
func (b *Backend) Name() manifest.Target { return cmp.Or(b.Target, manifest.QEMU) }

// Can implements loader.Backend.
func (b *Backend) Can() loader.Capabilities {
	return loader.Capabilities{Several: true, Resize: !b.Lacks.Resize, Input: !b.Lacks.Input, Forwards: !b.Lacks.Forwards, Network: !b.Lacks.Network, Devices: !b.Lacks.Devices}
}

// Check implements loader.Backend.
func (b *Backend) Check() error { return nil }

// Load implements loader.Backend.
func (b *Backend) Load(_ context.Context, v *loader.Verified, c loader.Config) (loader.Instance, error) {
	i, err := b.load(v, c)
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (b *Backend) load(v *loader.Verified, c loader.Config) (*Instance, error) {
	if b.LoadErr != nil {
		return nil, b.LoadErr
	}
	if err := c.Resolve(b.Name(), v.Manifest()); err != nil {
		return nil, err
	}
	if c.Plan == nil || len(c.Plan.CPUs) != c.CPUs || (c.Group == "") != c.Plan.TakenOffline() || len(c.ID) != 32 {
		return nil, fmt.Errorf("%q has %d CPUs in %q, the plan is %+v", c.ID, c.CPUs, c.Group, c.Plan)
	}
	return &Instance{Config: c, backend: b, machine: &machine{end: make(chan struct{})}}, nil
}

// Instance is one of Backend's.
type Instance struct {
	Config loader.Config

	backend *Backend
	*machine
}

// machine is what runs.
type machine struct {
	once sync.Once
	end  chan struct{}
	exit *control.Exit
	err  error

	mu   sync.Mutex
	cpus alloc.CPUSet // empty before it was started
}

// End ends the instance.
func (m *machine) End(exit *control.Exit, err error) {
	m.once.Do(func() {
		m.exit, m.err = exit, err
		close(m.end)
	})
}

// CPUs are those that it runs on.
func (m *machine) CPUs() alloc.CPUSet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cpus
}

func (m *machine) use(cpus alloc.CPUSet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cpus = cpus
}

// Start implements loader.Instance.
func (i *Instance) Start(ctx context.Context) error {
	if i.backend.Slow {
		<-ctx.Done()
		return ctx.Err()
	}
	i.use(i.Config.Plan.CPUs)
	_, _ = io.WriteString(i.Config.Console, "booted\n")
	i.Config.Event(loader.Event{Since: time.Millisecond, Ready: &control.Ready{PID: 2}})
	if i.backend.Started != nil {
		i.backend.Started(i)
	}
	return nil
}

// Signal implements loader.Instance.
func (i *Instance) Signal(number int) error {
	fmt.Fprintln(i.Config.Console, "signal", number)
	if number == int(unix.SIGTERM) {
		i.End(&control.Exit{}, nil)
	}
	return nil
}

// Type implements loader.Instance.
func (i *Instance) Type(keys []byte) error {
	_, err := i.Config.Console.Write(keys)
	return err
}

// Resize implements loader.Instance.
func (i *Instance) Resize(_ context.Context, p *alloc.Plan) error {
	if i.backend.Refuse != nil {
		if err := i.backend.Refuse(p.CPUs); err != nil {
			return err
		}
	}
	i.use(p.CPUs)
	return nil
}

// Kill implements loader.Instance.
func (i *Instance) Kill() error {
	i.End(&control.Exit{Signal: int(unix.SIGKILL)}, nil)
	return nil
}

// Wait implements loader.Instance.
func (i *Instance) Wait() (*control.Exit, error) {
	<-i.end
	return i.exit, i.err
}

// Close implements loader.Instance.
func (i *Instance) Close() error {
	i.End(nil, errors.New("closed"))
	return nil
}
