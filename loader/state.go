// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
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
	"github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/signer/flock"
	"github.com/tenon-build/tenon/signer/ownership"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/strictjson"
	"github.com/tenon-build/tenon/signer/trust"
)

// ErrRollback says that something is older than what this host has seen. It comes
// wrapped in ErrRefused.
var ErrRollback = errors.New("older than what this host has seen")

// State is what a host remembers, so that nothing older is accepted again: of each
// bundle's name the highest version that was accepted, and the last revocation
// list that was good, whatever became of the bundle. It is the file trust.json of
// a directory, which has to exist, and which nobody else may write to: such a one is refused. One policy
// has one directory.
type State struct {
	Dir      string
	ReadOnly bool // compare, but remember nothing
}

const (
	stateFile    = "trust.json"
	lockFile     = "trust.lock"
	stateVersion = 1
)

// seen is the file's content.
type seen struct {
	Version int               `json:"version"`
	Bundles map[string]string `json:"bundles"` // versions by name
	List    listSeen          `json:"revocationList"`
}

type listSeen struct {
	Number  int64             `json:"number"`
	Digest  string            `json:"digest"`            // of its JSON form: of two lists of one number, the first counts
	Entries trust.Revocations `json:"entries,omitempty"` // nobody of these signs the next one
}

func newListSeen(l *revocation.List) (listSeen, error) {
	data, err := json.Marshal(l)
	sum := sha256.Sum256(data)
	return listSeen{l.Number, "sha256:" + hex.EncodeToString(sum[:]), l.Entries}, err
}

// openList has a list opened by what the last one revoked, compares the two, and
// remembers it.
func (s *State) openList(ctx context.Context, open func(before trust.Revocations) (*revocation.List, error)) (l *revocation.List, err error) {
	err = s.update(ctx, func(have *seen) (raised bool, err error) {
		if l, err = open(have.List.Entries); err != nil {
			return false, err
		}
		return have.raiseList(l)
	})
	return l, err
}

// checkVersion compares a bundle's version with the highest.
func (s *State) checkVersion(ctx context.Context, m *manifest.Manifest) error {
	return (&State{s.Dir, true}).accepted(ctx, m)
}

// accepted does so too, and remembers it.
func (s *State) accepted(ctx context.Context, m *manifest.Manifest) error {
	return s.update(ctx, func(have *seen) (bool, error) { return have.raiseVersion(m) })
}

// update applies a change to what was seen, while nobody else does.
func (s *State) update(ctx context.Context, raise func(*seen) (raised bool, err error)) error {
	var verdict error // which is not about the directory
	err := s.checkDir()
	if err == nil {
		err = s.locked(ctx, func() error {
			have, err := s.read()
			if err != nil {
				return err
			}
			var raised bool
			if raised, verdict = raise(have); verdict != nil || !raised || s.ReadOnly {
				return nil
			}
			return s.write(have)
		})
	}
	if err != nil {
		return fmt.Errorf("state %q: %w", s.Dir, err)
	}
	return verdict
}

// checkDir refuses a directory that others can write to. It comes before the lock, for which
// they could keep us waiting there.
func (s *State) checkDir() error {
	if info, err := os.Stat(s.Dir); err != nil {
		return err
	} else if !info.IsDir() {
		return errors.New("not a directory")
	}
	return ownership.Check(s.Dir)
}

// locked holds a lock meanwhile, where something is to be remembered. The lock is
// a file that nobody else can open, so that nobody else can keep us waiting.
func (s *State) locked(ctx context.Context, do func() error) error {
	if s.ReadOnly {
		return do()
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flock.Lock(ctx, f); err != nil {
		return err
	}
	return do()
}

func (s *State) write(have *seen) error {
	data, err := json.Marshal(have)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(s.Dir, stateFile), append(data, '\n'), 0o644, renameio.WithTempDir(s.Dir)); err != nil {
		return err
	}
	dir, err := os.Open(s.Dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// read returns what was seen: nothing where there is no file. What cannot be read
// is an error, as a host that has forgotten would accept what is old.
func (s *State) read() (*seen, error) {
	have := &seen{Version: stateVersion, Bundles: map[string]string{}}
	path := filepath.Join(s.Dir, stateFile)
	err := ownership.Check(path)
	if errors.Is(err, fs.ErrNotExist) {
		return have, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := regular.Read(path, limit.State)
	if err != nil {
		return nil, err
	}
	if err := strictjson.Decode(data, limit.State, have); err != nil {
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
	case err != nil || now.Number == have.List.Number && now.Digest == have.List.Digest:
		return false, err
	case now.Number < have.List.Number:
		return false, fmt.Errorf("revocation list: number %d is %w: %d", now.Number, ErrRollback, have.List.Number)
	case now.Number == have.List.Number:
		return false, fmt.Errorf("revocation list: number %d is another list than the one of that number, so one is %w", now.Number, ErrRollback)
	}
	have.List = now
	return true, nil
}
