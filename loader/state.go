// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/trust"
)

// ErrRollback says that something is older than what this host has seen. It comes
// wrapped in ErrRefused.
var ErrRollback = errors.New("older than what this host has seen")

// State is what a host remembers, so that nothing older is accepted again: of each
// bundle's name the highest version that was accepted, and the last revocation
// list that was good, whatever became of the bundle. It is the file trust.json of
// a directory, which has to exist. One policy has one directory.
type State struct {
	Dir      string
	ReadOnly bool // compare, but remember nothing
}

const (
	stateFile    = "trust.json"
	stateVersion = 1
	maxState     = 16 << 20 // bytes
)

// seen is the file's content.
type seen struct {
	Version int               `json:"version"`
	Bundles map[string]string `json:"bundles"` // versions by name
	List    listSeen          `json:"revocationList"`
}

type listSeen struct {
	Number int64  `json:"number"`
	Digest string `json:"digest"` // of its JSON form: of two lists of one number, the first counts
}

func newListSeen(l *revocation.List) (listSeen, error) {
	data, err := json.Marshal(l)
	sum := sha256.Sum256(data)
	return listSeen{l.Number, "sha256:" + hex.EncodeToString(sum[:])}, err
}

// sawList compares a list with the last one, and remembers it.
func (s *State) sawList(l *revocation.List) error {
	return s.update(func(have *seen) (bool, error) { return have.raiseList(l) })
}

// checkVersion compares a bundle's version with the highest.
func (s *State) checkVersion(m *manifest.Manifest) error {
	return (&State{s.Dir, true}).accepted(m)
}

// accepted does so too, and remembers it.
func (s *State) accepted(m *manifest.Manifest) error {
	return s.update(func(have *seen) (bool, error) { return have.raiseVersion(m) })
}

// update applies a change to what was seen, while nobody else does.
func (s *State) update(raise func(*seen) (raised bool, err error)) error {
	if s.ReadOnly {
		have, err := s.read()
		if err == nil {
			_, err = raise(have)
		}
		return s.wrap(err)
	}
	return s.wrap(s.locked(func(dir *os.File) error {
		have, err := s.read()
		if err != nil {
			return err
		}
		if raised, err := raise(have); err != nil || !raised {
			return err
		}
		data, err := json.Marshal(have)
		if err != nil {
			return err
		}
		if err := renameio.WriteFile(filepath.Join(s.Dir, stateFile), append(data, '\n'), 0o644, renameio.WithTempDir(s.Dir)); err != nil {
			return err
		}
		return dir.Sync()
	}))
}

func (s *State) wrap(err error) error {
	if err != nil {
		return fmt.Errorf("state %q: %w", s.Dir, err)
	}
	return nil
}

// locked holds the directory's lock meanwhile.
func (s *State) locked(do func(dir *os.File) error) error {
	dir, err := os.Open(s.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return os.NewSyscallError("flock", err)
	}
	return do(dir)
}

// read returns what was seen: nothing where there is no file. What cannot be read
// is an error, as a host that has forgotten would accept what is old.
func (s *State) read() (*seen, error) {
	have := &seen{Version: stateVersion, Bundles: map[string]string{}}
	if info, err := os.Stat(s.Dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, errors.New("not a directory")
	}
	data, err := os.ReadFile(filepath.Join(s.Dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return have, nil
	}
	if err != nil {
		return nil, err
	}
	if err := manifest.DecodeStrict(data, maxState, have); err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile, err)
	}
	for _, name := range slices.Sorted(maps.Keys(have.Bundles)) {
		if err := manifest.CheckBundleVersion(have.Bundles[name]); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", stateFile, name, err)
		}
	}
	if have.Version != stateVersion || have.Bundles == nil {
		return nil, fmt.Errorf("%s: version %d: this program reads version %d", stateFile, have.Version, stateVersion)
	}
	return have, nil
}

// raiseVersion refuses a lower version than the highest, and takes a higher one.
func (have *seen) raiseVersion(m *manifest.Manifest) (raised bool, err error) {
	last := have.Bundles[m.Name]
	if trust.Older(m.BundleVersion, last) {
		return false, fmt.Errorf("bundle %q: version %q is %w: %q", m.Name, m.BundleVersion, ErrRollback, last)
	}
	if !trust.Older(last, m.BundleVersion) {
		return false, nil
	}
	have.Bundles[m.Name] = m.BundleVersion
	return true, nil
}

// raiseList does so with lists.
func (have *seen) raiseList(l *revocation.List) (raised bool, err error) {
	now, err := newListSeen(l)
	switch {
	case err != nil || now == have.List:
		return false, err
	case now.Number < have.List.Number:
		return false, fmt.Errorf("revocation list: number %d is %w: %d", now.Number, ErrRollback, have.List.Number)
	case now.Number == have.List.Number:
		return false, fmt.Errorf("revocation list: number %d is another list than the one of that number, so one is %w", now.Number, ErrRollback)
	}
	have.List = now
	return true, nil
}
