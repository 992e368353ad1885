// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/signer/flock"
	"github.com/tenon-build/tenon/signer/regular"
)

const (
	journalFile    = "alloc.json"
	journalNew     = "alloc.json.new" // what is not complete yet
	journalVersion = 1
	bootID         = "proc/sys/kernel/random/boot_id"
)

// ErrJournal says that the journal is damaged, or of another version.
var ErrJournal = errors.New("bad journal")

// journal is what is held and what was before. It is written before the host is
// touched, so that whoever reads it after a crash can put everything back. It has no
// names of files in it: where they are is known. Without a file, nothing is held.
type journal struct {
	Version int               `json:"version"`
	Boot    string            `json:"boot"` // a reboot puts everything back by itself
	Entries map[string]*entry `json:"entries"`

	// What was there before the first instance took something, as it was read.
	IRQs    map[int]string `json:"irqs"`    // smp_affinity_list of those that are to be moved
	Default string         `json:"default"` // default_smp_affinity; empty while it is untouched
	Subtree bool           `json:"subtree"` // the root group had no cpuset in its subtree_control
}

// entry is one owner's.
type entry struct {
	State state `json:"state"`
	Plan  Plan  `json:"plan"`
	Was   *Plan `json:"was,omitempty"` // while it is resized
}

// state is how far an entry is.
type state string

const (
	applying  state = "applying"  // to be undone, if this is what a crash left
	held      state = "held"      //
	releasing state = "releasing" // to be completed
	restoring state = "restoring" // a resize that is undone; never in the file
)

// undo turns an entry back to what it was before Commit.
func (e *entry) undo() {
	if e.Was == nil {
		e.State = releasing
		return
	}
	*e = entry{State: restoring, Plan: *e.Was}
}

func (j *journal) empty() bool {
	return len(j.Entries) == 0 && len(j.IRQs) == 0 && j.Default == "" && !j.Subtree
}

// grouped says whether any CPUs are held in a control group.
func (j *journal) grouped() bool {
	for _, e := range j.Entries {
		if !e.Plan.TakenOffline() {
			return true
		}
	}
	return false
}

// held are the CPUs that the host is kept off.
func (j *journal) held() CPUSet {
	var all []int
	for _, e := range j.Entries {
		if e.State != releasing {
			all = append(all, e.Plan.HeldCPUs()...)
		}
	}
	return NewCPUSet(all...)
}

// lock keeps others out of the state directory until the file is closed, which the
// kernel does when the process ends.
func (h *Host) lock(ctx context.Context) (*os.File, error) {
	dir, err := os.OpenFile(h.State, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoState
	}
	if err != nil {
		return nil, err
	}
	if err := flock.Lock(ctx, dir); err != nil {
		dir.Close()
		return nil, fmt.Errorf("locking %s: %w", h.State, err)
	}
	return dir, nil
}

// errNoState says that nothing was ever held.
var errNoState = errors.New("there is no state directory")

// maxJournal is the largest journal, in bytes: thousands of instances.
const maxJournal = 64 << 20

func (h *Host) readJournal() (*journal, error) {
	boot, err := h.Root.ReadFile(bootID)
	if err != nil {
		return nil, err
	}
	none := &journal{Version: journalVersion, Boot: strings.TrimSpace(string(boot)), Entries: map[string]*entry{}, IRQs: map[int]string{}}
	name := filepath.Join(h.State, journalFile)
	data, err := regular.Read(name, maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if errors.Is(err, regular.ErrNotRegular) {
		return nil, fmt.Errorf("%w %w", ErrJournal, err)
	}
	if err != nil {
		return nil, err
	}
	j := &journal{}
	in := json.NewDecoder(bytes.NewReader(data))
	in.DisallowUnknownFields()
	err = in.Decode(j)
	if err == nil {
		err = j.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrJournal, name, err)
	}
	if j.Boot != none.Boot {
		return none, nil
	}
	return j, nil
}

func (j *journal) check() error {
	if j.Version != journalVersion {
		return fmt.Errorf("version %d: this program reads version %d", j.Version, journalVersion)
	}
	if j.Entries == nil || j.IRQs == nil {
		return errors.New("a field is missing")
	}
	for owner, e := range j.Entries {
		if err := checkOwner(owner); err != nil {
			return err
		}
		if e == nil || e.State != applying && e.State != held && e.State != releasing {
			return fmt.Errorf("the state of %q is unknown", owner)
		}
	}
	for irq := range j.IRQs {
		if irq < 0 {
			return fmt.Errorf("IRQ %d", irq)
		}
	}
	return nil
}

// save replaces the journal. When it returns, the disk has it.
func (a *action) save() error {
	name, temp := filepath.Join(a.State, journalFile), filepath.Join(a.State, journalNew)
	data, err := json.Marshal(a.j)
	if err != nil {
		return err
	}
	steps := []step{
		{"write " + journalNew, func() error { return writeSynced(temp, append(data, '\n')) }},
		{"rename " + journalNew, func() error { return os.Rename(temp, name) }},
		{"sync " + journalFile, a.dir.Sync},
	}
	if a.j.empty() {
		steps = []step{
			{"remove " + journalNew, func() error { return removeIfThere(temp) }},
			{"remove " + journalFile, func() error { return removeIfThere(name) }},
			{"sync " + journalFile, a.dir.Sync},
		}
	}
	for _, s := range steps {
		if err := a.do(s); err != nil {
			if !isStop(err) { // a disk that is full keeps nothing half-written
				err = errors.Join(err, removeIfThere(temp))
			}
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

func removeIfThere(name string) error {
	err := os.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
