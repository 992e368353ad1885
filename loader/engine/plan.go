// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
)

// Plan says what an instance of a bundle would get now, and changes nothing. An error
// of what is short is a *alloc.PlanError.
func (e *Engine) Plan(name string, m *manifest.Manifest, r *instance.Request) (*alloc.Plan, error) {
	want, err := e.want(m, r)
	if err != nil {
		return nil, err
	}
	p, err := want.topology.Plan(want.request, want.held)
	return p, planning(name, err)
}

// Held returns what cannot be given now. It waits for nobody, and changes nothing.
func (e *Engine) Held() (alloc.Held, error) {
	if e.Dir == "" {
		return alloc.Held{Host: e.Reserve}, nil
	}
	held, err := e.Host().Held()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // nothing ran here yet
		return alloc.Held{}, fmt.Errorf("reading what is held: %w", err)
	}
	return e.held(held), nil
}

func planning(name string, err error) error {
	if err != nil {
		return fmt.Errorf("planning %q: %w", name, err)
	}
	return nil
}

// want is a request, with what the bundle says where it says nothing.
type want struct {
	backend  loader.Backend
	topology *alloc.Topology
	held     alloc.Held // then
	config   loader.Config
	request  alloc.Request
}

func (e *Engine) want(m *manifest.Manifest, r *instance.Request) (*want, error) {
	b, err := e.backend(cmp.Or(r.Backend, m.Target))
	if err != nil {
		return nil, fmt.Errorf("bundle %q: %w", m.Name, err)
	}
	if len(r.Devices) > 0 && !b.Can().Devices {
		return nil, fmt.Errorf("%w: %s gives no PCI functions", ErrBackend, b.Name())
	}
	if m.Claims.Device("net") != nil && !b.Can().Network {
		return nil, fmt.Errorf("%w: bundle %q claims a network interface, and %s has none to give", ErrBackend, m.Name, b.Name())
	}
	if len(r.Forwards) > 0 && !b.Can().Forwards {
		return nil, fmt.Errorf("%w: %s forwards no ports", ErrBackend, b.Name())
	}
	w := &want{backend: b, config: loader.Config{Settings: r.Settings}}
	w.config.CPUs = max(r.CPUs, len(r.CPUList))
	if err := w.config.Resolve(b.Name(), m); err != nil {
		return nil, err
	}
	if w.held, err = e.Held(); err != nil {
		return nil, err
	}
	if w.topology, err = alloc.Read(e.Root); err != nil {
		return nil, err
	}
	w.topology = w.topology.With(w.held.Instances)
	w.config.MaxCPUs = int(min(m.Claims.CPUs.Max, int64(len(w.topology.CPUs))))
	w.request = alloc.Request{
		CPUList: r.CPUList, SplitCores: r.SplitCores, Offline: b.Can().Offline, Memory: w.config.Memory, PageSize: r.PageSize, Node: r.Node,
		Bounds: alloc.Bounds{CPUs: alloc.Range(m.Claims.CPUs), Memory: alloc.Range(m.Claims.Memory)},
	}
	if len(r.CPUList) == 0 {
		w.request.CPUs = w.config.CPUs
	}
	for _, address := range r.Devices {
		w.request.Devices = append(w.request.Devices, alloc.DeviceRequest{Address: address})
	}
	return w, nil
}

// held completes what others hold: the memory of what runs was taken when it started.
func (e *Engine) held(others []alloc.Holding) alloc.Held {
	for i := range others {
		r, err := e.Store().Get(others[i].Owner)
		others[i].Resident = err == nil && r.State == instance.Running
	}
	return alloc.Held{Instances: others, Host: e.Reserve}
}

// heldOf is a plan as records have it.
func heldOf(p *alloc.Plan) instance.Held {
	h := instance.Held{CPUs: p.HeldCPUs().String(), Devices: append(append([]string{}, p.Devices...), p.Companions...)}
	for _, m := range p.Memory {
		h.Memory = append(h.Memory, instance.Memory(m))
	}
	return h
}
