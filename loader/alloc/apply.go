// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Host takes CPUs from a host and gives them back. Its methods may be called from
// several goroutines and processes that name the same state directory: they wait for
// each other.
type Host struct {
	Root  Root
	State string // a directory that is gone or unchanged after a reboot, such as /run/mortise/.alloc; Begin makes it

	// Fault is for tests. It is called before and after each step of an operation
	// that changes something, with the number of that point, from 1, and its name.
	// If it returns an error, the operation stops as if it had been killed there:
	// nothing is undone, and the error is returned.
	Fault func(number int, name string) error
}

// Report says how well a plan is held.
type Report struct {
	Partition string    `json:"partition"` // isolated, root (they are load balanced), exclusive (cgroup v1), or offline: the back end's work
	Group     string    `json:"group"`     // the control group's directory, relative to the Root; empty for offline
	Unmoved   []Unmoved `json:"unmoved"`   // interrupts that still come
}

// Unmoved is an IRQ that the kernel did not move off the CPUs.
type Unmoved struct {
	IRQ    int    `json:"irq"` // -1: the default of new ones
	Reason string `json:"reason"`
}

// Taking is a change of what an owner holds, from Begin until Commit or Close. Nobody else
// changes what is held of the host meanwhile.
type Taking struct {
	Others []Holding // what others hold
	Has    *Plan     // what the owner has, apart from that; nil: nothing

	owner  string
	action *action // nil after Commit or Close
}

// Begin begins a change, when others have ended theirs, unless ctx ends before.
func (h *Host) Begin(ctx context.Context, owner string) (*Taking, error) {
	if err := checkOwner(owner); err != nil {
		return nil, err
	}
	if err := os.Mkdir(h.State, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, wrap("taking CPUs for", owner, err)
	}
	a, err := h.begin(ctx)
	if err != nil {
		return nil, wrap("taking CPUs for", owner, err)
	}
	return &Taking{Others: a.holdings(owner), Has: a.plan(owner), owner: owner, action: a}, nil
}

// Commit takes what a plan says, or changes what the owner has to that, and ends the
// Taking: the CPUs get a partition of their own, and interrupts are moved off them. Memory
// and devices are noted as held, no more.
//
// CPUs that the back end takes offline get no partition. Interrupts are moved off them,
// too: the kernel would move them anywhere, to CPUs of other owners as well, and not
// back. The back end takes what came to the plan after Commit, and has brought online
// what is not in it any more before Commit or Release.
//
// After an error, the host is as it was before. A Taking that has ended is refused.
func (t *Taking) Commit(p *Plan) (*Report, error) {
	if t.action == nil {
		return nil, wrap("taking CPUs for", t.owner, errors.New("the change has ended already"))
	}
	defer t.Close()
	report, err := t.action.apply(t.owner, p)
	return report, wrap("taking CPUs for", t.owner, err)
}

// Close ends the Taking. Without Commit, nothing has changed. It may be called again, and
// does nothing then.
func (t *Taking) Close() {
	if t.action != nil {
		t.action.end()
		t.action = nil
	}
}

// Release gives back what an owner holds, and puts the host back to what it was,
// but for what others still hold. Without a holding, it does nothing. With processes
// in the control group, it changes nothing, and the error is unix.EBUSY. With a full disk,
// everything is given back, and the error is ErrUnsaved.
func (h *Host) Release(ctx context.Context, owner string) error {
	return h.ReleaseAll(ctx, []string{owner})[owner]
}

// ReleaseAll is Release for several owners at once. It returns the errors by owner; what
// cannot be given back of one keeps none of the others.
func (h *Host) ReleaseAll(ctx context.Context, owners []string) map[string]error {
	errs := map[string]error{}
	valid := slices.DeleteFunc(slices.Clone(owners), func(owner string) bool {
		errs[owner] = checkOwner(owner)
		return errs[owner] != nil
	})
	err := h.locked(ctx, func(a *action) error { return a.release(valid, errs) })
	for _, owner := range valid {
		if errs[owner] == nil {
			errs[owner] = err
		}
		errs[owner] = wrap("releasing the CPUs of", owner, errs[owner])
	}
	return errs
}

// release gives back what owners hold, and adds the errors that concern one of them.
func (a *action) release(owners []string, errs map[string]error) error {
	var going []string
	for _, owner := range owners {
		e := a.j.Entries[owner]
		if e == nil {
			continue
		}
		if !e.Plan.TakenOffline() {
			if errs[owner] = a.checkIdle(a.group(owner)); errs[owner] != nil {
				continue
			}
		}
		e.State = releasing
		going = append(going, owner)
	}
	if len(going) == 0 {
		return nil
	}
	if err := a.save(); err != nil && !isFull(err) {
		return err
	}
	err := a.settle()
	for _, owner := range going {
		errs[owner] = a.stuck[owner]
	}
	return err
}

// Recover completes what a crash left: what was being applied is undone, what was
// being released is released. Begin and Release do so first, too.
func (h *Host) Recover(ctx context.Context) error {
	err := h.locked(ctx, func(a *action) error {
		errs := []error{a.recovered}
		for _, owner := range slices.Sorted(maps.Keys(a.stuck)) {
			errs = append(errs, wrap("releasing the CPUs of", owner, a.stuck[owner]))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("recovering: %w", err)
	}
	return nil
}

// ErrUnsaved says that what is held was given back, and that the journal, on a full disk,
// goes on to say that it is held. Until it is released again, nobody else is given it.
var ErrUnsaved = errors.New("given back, but not noted")

// isFull says that there is no room on a disk, or none for this user.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Group returns the directory of an owner's control group, relative to the Root.
func (t *Topology) Group(owner string) string { return t.Cpuset.group(owner) }

// Intact says whether the CPUs are still a partition of the owner's, as Commit reported:
// whoever else manages control groups may have changed that. Then Commit makes it anew.
func (h *Host) Intact(owner string, p *Plan, report *Report) bool {
	if p.TakenOffline() {
		return true // there is no partition
	}
	kind := [2]string{"cpuset.cpus.partition", report.Partition}
	if report.Partition == "exclusive" {
		kind = [2]string{"cpuset.cpu_exclusive", "1"}
	}
	for _, file := range [][2]string{{"cpuset.cpus", p.HeldCPUs().String()}, kind} {
		now, err := h.Root.ReadFile(report.Group + "/" + file[0])
		if err != nil || strings.TrimSpace(string(now)) != file[1] {
			return false
		}
	}
	return true
}

// Held returns what is held, by owner, without what Recover is going to give back. It
// waits for nobody.
func (h *Host) Held() ([]Holding, error) {
	j, err := h.readJournal()
	if err != nil {
		return nil, err
	}
	for _, e := range j.Entries {
		if e.State == applying {
			e.undo()
		}
	}
	return (&action{j: j}).holdings(""), nil
}

func wrap(doing, owner string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %q: %w", doing, owner, err)
	}
	return nil
}

// checkOwner takes what is also a name of a control group.
func checkOwner(owner string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if owner == "" || len(owner) > 63 || strings.Trim(owner, letters+"-_.") != "" || !strings.Contains(letters, owner[:1]) {
		return fmt.Errorf("%s cannot own CPUs: a name has 1 to 63 of a-z, A-Z, 0-9, '-', '_' and '.', the first is a letter or a digit", quoted(owner))
	}
	return nil
}

// action is one operation, under the lock.
type action struct {
	*Host
	dir    interface{ Sync() error } // the state directory
	end    func()                    // gives up the lock
	j      *journal
	cpuset Cpuset
	points int

	recovered error            // what keeps nobody from work: errNotRestored, ErrUnsaved, or nil
	stuck     map[string]error // by owner: what could not be given back, and is still held
}

// step is one change, and what it is called in errors.
type step struct {
	name string
	run  func() error
}

// stop is an error of Host.Fault.
type stop struct{ error }

func (s stop) Unwrap() error { return s.error }

func isStop(err error) bool { return errors.As(err, new(stop)) }

func (a *action) do(s step) error {
	if err := a.point("before: " + s.name); err != nil {
		return err
	}
	if err := s.run(); err != nil {
		return fmt.Errorf("%s: %w", s.name, reason(err))
	}
	return a.point("after: " + s.name)
}

func (a *action) point(name string) error {
	a.points++
	if a.Fault == nil {
		return nil
	}
	if err := a.Fault(a.points, name); err != nil {
		return stop{err}
	}
	return nil
}

// locked runs an operation on a journal that nothing is pending in. Where there was never
// one, nothing is held, and there is nothing to do.
func (h *Host) locked(ctx context.Context, do func(*action) error) error {
	a, err := h.begin(ctx)
	if errors.Is(err, errNoState) {
		return nil
	}
	if err != nil {
		return err
	}
	defer a.end()
	return do(a)
}

// begin begins an operation on a journal that nothing is pending in.
func (h *Host) begin(ctx context.Context) (*action, error) {
	dir, err := h.lock(ctx)
	if err != nil {
		return nil, err
	}
	a := &action{Host: h, dir: dir, end: func() { _ = dir.Close() }}
	if err := a.open(); err != nil {
		a.end()
		return nil, err
	}
	return a, nil
}

// open reads the journal, and completes what is pending.
func (a *action) open() (err error) {
	if a.cpuset, err = findCpuset(a.Root); err != nil {
		return err
	}
	if a.j, err = a.readJournal(); err != nil {
		return err
	}
	if err := removeIfThere(filepath.Join(a.State, journalNew)); err != nil {
		return err
	}
	a.recovered = a.recover()
	if err := a.recovered; err != nil && !errors.Is(err, errNotRestored) && !errors.Is(err, ErrUnsaved) {
		return err
	}
	return nil
}

func (a *action) recover() error {
	pending := len(a.j.Entries) == 0 && !a.j.empty()
	for _, e := range a.j.Entries {
		if e.State == applying {
			e.undo()
		}
		pending = pending || e.State != held
	}
	if !pending {
		return nil
	}
	return a.settle()
}

func (a *action) plan(owner string) *Plan {
	if e := a.j.Entries[owner]; e != nil {
		return &e.Plan
	}
	return nil
}

// holdings returns what others than the owner hold.
func (a *action) holdings(owner string) []Holding {
	var out []Holding
	for _, other := range slices.Sorted(maps.Keys(a.j.Entries)) {
		if e := a.j.Entries[other]; other != owner && e.State != releasing {
			out = append(out, Holding{Owner: other, Plan: e.Plan})
		}
	}
	return out
}

func (a *action) apply(owner string, p *Plan) (*Report, error) {
	if err := a.checkOverlap(owner, p); err != nil {
		return nil, err
	}
	if err := a.checkOthers(owner, p); err != nil {
		return nil, err
	}
	doing := entry{State: applying, Plan: *p}
	has := a.j.Entries[owner]
	switch {
	case has != nil && has.Plan.TakenOffline() != p.TakenOffline():
		return nil, errors.New("what is held in a control group is not taken offline, nor the other way round")
	case has != nil:
		doing.Was = &has.Plan
	case !p.TakenOffline():
		if err := a.checkGroup(owner); err != nil {
			return nil, err
		}
	}
	a.j.Entries[owner] = &doing
	if err := a.note(p); err != nil {
		return nil, err
	}
	if err := a.save(); err != nil {
		return nil, err // the host was not touched
	}
	report := &Report{}
	err := a.makeGroup(owner, p, report)
	if err == nil {
		report.Unmoved, err = a.affinities()
	}
	if p.TakenOffline() {
		report.Unmoved = nil // the kernel does that when they go
	}
	if err == nil || errors.Is(err, errNotRestored) {
		a.j.Entries[owner] = &entry{State: held, Plan: *p}
		err = a.save()
	}
	if err == nil {
		return report, nil
	}
	if isStop(err) {
		return nil, err
	}
	doing.undo()
	a.j.Entries[owner] = &doing
	undo := a.settle()
	if undo == nil {
		undo = a.stuck[owner]
	}
	if undo != nil {
		return nil, fmt.Errorf("%w; undoing that: %w", err, undo)
	}
	return nil, err
}

// checkOverlap refuses a plan that was made without asking what is held.
func (a *action) checkOverlap(owner string, p *Plan) error {
	for _, h := range a.holdings(owner) {
		if cpus := h.Plan.HeldCPUs().And(p.HeldCPUs()); len(cpus) > 0 {
			return &PlanError{Kind: ErrTaken, Reason: is(cpus) + " " + h.how(), Holders: []string{h.Owner}}
		}
		for _, address := range p.heldDevices() {
			if slices.Contains(h.Plan.heldDevices(), address) {
				return &PlanError{Kind: ErrTaken, Reason: "device " + address + " is " + h.how(), Holders: []string{h.Owner}}
			}
		}
	}
	return nil
}

// settle brings the host to what the journal says, and then the journal to what is
// held. What cannot be given back is in a.stuck: it stays held, and keeps nobody else from
// work.
func (a *action) settle() error {
	a.stuck = map[string]error{}
	for _, owner := range slices.Sorted(maps.Keys(a.j.Entries)) {
		err := a.settleEntry(owner, a.j.Entries[owner])
		if isStop(err) {
			return err
		}
		if err != nil {
			a.stuck[owner] = err
		}
	}
	_, moved := a.affinities()
	if moved != nil && !errors.Is(moved, errNotRestored) {
		return moved
	}
	maps.DeleteFunc(a.j.Entries, func(_ string, e *entry) bool { return e.State == releasing })
	if err := a.restoreSubtree(); err != nil {
		return err
	}
	if err := a.save(); isFull(err) {
		return fmt.Errorf("%w: %w", ErrUnsaved, err)
	} else if err != nil {
		return err
	}
	return moved
}

func (a *action) settleEntry(owner string, e *entry) (err error) {
	if e.State == releasing {
		if err = a.removeGroup(owner, &e.Plan); err == nil || isStop(err) {
			return err
		}
		e.State = restoring
	}
	if e.State == restoring {
		restored := a.makeGroup(owner, &e.Plan, &Report{})
		if isStop(restored) {
			return restored
		}
		if err == nil {
			err = restored
		}
		e.State = held
	}
	return err
}
