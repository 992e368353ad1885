// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// See Documentation/core-api/irq/irq-affinity.rst.
const (
	procIRQ    = "proc/irq"
	defaultIRQ = procIRQ + "/default_smp_affinity" // a mask, for IRQs that are set up later
)

func affinityFile(irq int) string { return path.Join(procIRQ, strconv.Itoa(irq), "smp_affinity_list") }

// readAffinities returns what /proc/irq/*/smp_affinity_list say. There are none
// where the kernel has no such interrupts.
func readAffinities(root Root) (map[int]string, error) {
	names, err := root.ReadDir(procIRQ)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := map[int]string{}
	for _, name := range names {
		irq, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		text, err := root.ReadFile(affinityFile(irq))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoDevice) {
			continue // freed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out[irq] = string(text)
	}
	return out, nil
}

// note adds to the journal what is going to be changed for a plan, as it is now.
func (a *action) note(p *Plan) error {
	held := a.j.held()
	now, err := readAffinities(a.Root)
	if err != nil {
		return err
	}
	for irq, text := range now {
		cpus, err := ParseCPUs(text)
		if err != nil {
			return fmt.Errorf("%s: %w", affinityFile(irq), err)
		}
		if _, known := a.j.IRQs[irq]; !known && len(cpus.And(held)) > 0 {
			a.j.IRQs[irq] = text
		}
	}
	if a.j.Default == "" {
		text, err := a.Root.ReadFile(defaultIRQ)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		cpus, err := parseMask(string(text))
		if err != nil && len(text) > 0 {
			return fmt.Errorf("%s: %w", defaultIRQ, err)
		}
		if len(cpus.And(held)) > 0 {
			a.j.Default = string(text)
		}
	}
	return a.noteSubtree(p)
}

// affinities moves IRQs off the CPUs that are held, and back to what they were when
// these are not held any more. What cannot be moved off is reported; what cannot be
// put back is errNotRestored, and stays in the journal.
func (a *action) affinities() ([]Unmoved, error) {
	held := a.j.held()
	text, err := a.Root.ReadFile(sysCPU + "/online")
	if err != nil {
		return nil, err
	}
	online, err := ParseCPUs(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s/online: %w", sysCPU, err)
	}
	var unmoved []Unmoved
	var errs []error
	for _, irq := range slices.Sorted(maps.Keys(a.j.IRQs)) {
		was, err := ParseCPUs(a.j.IRQs[irq])
		if err != nil {
			return nil, fmt.Errorf("journal: IRQ %d: %w", irq, err)
		}
		want := a.j.IRQs[irq]
		if len(was.And(held)) > 0 {
			want = without(was, held, online).String()
		}
		err = a.setAffinity(affinityFile(irq), want, ParseCPUs)
		switch {
		case err == nil && want == a.j.IRQs[irq], errors.Is(err, fs.ErrNotExist), errors.Is(err, errNoDevice):
			delete(a.j.IRQs, irq)
		case err == nil:
		case isStop(err):
			return nil, err
		case want == a.j.IRQs[irq]:
			errs = append(errs, err)
		default:
			unmoved = append(unmoved, Unmoved{irq, reason(err).Error()})
		}
	}
	err = a.defaultAffinity(held, online)
	if isStop(err) {
		return nil, err
	}
	if err != nil && a.j.Default != "" && len(held) > 0 {
		unmoved = append(unmoved, Unmoved{-1, reason(err).Error()})
	} else if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return unmoved, fmt.Errorf("%w: %w", errNotRestored, errors.Join(errs...))
	}
	return unmoved, nil
}

// errNotRestored says that the kernel refuses an affinity that there was before. It
// is tried again with the next operation, and keeps none from its work.
var errNotRestored = errors.New("an interrupt is not back where it was")

func (a *action) defaultAffinity(held, online CPUSet) error {
	if a.j.Default == "" {
		return nil
	}
	was, err := parseMask(a.j.Default)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	want := a.j.Default
	if len(was.And(held)) > 0 {
		want = without(was, held, online).mask()
	}
	if err := a.setAffinity(defaultIRQ, want, parseMask); err != nil {
		return err
	}
	if want == a.j.Default {
		a.j.Default = ""
	}
	return nil
}

// without takes what is held out of an affinity. Where nothing is left that could
// serve an interrupt, the whole rest of the host does.
func without(was, held, online CPUSet) CPUSet {
	if left := was.Minus(held); len(left.And(online)) > 0 {
		return left
	}
	return online.Minus(held)
}

// setAffinity writes only what is not so already.
func (a *action) setAffinity(name, want string, parse func(string) (CPUSet, error)) error {
	now, err := a.Root.ReadFile(name)
	if err != nil {
		return err
	}
	have, err := parse(string(now))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if goal, err := parse(want); err != nil || slices.Equal(have, goal) {
		return err
	}
	return a.do(step{"write " + strings.TrimSpace(want) + " to " + name, func() error { return a.Root.WriteFile(name, []byte(want)) }})
}
