// SPDX-License-Identifier: Apache-2.0

// Package engine runs instances on a host: it joins verified bundles, what the host
// can give, back ends, and the records of what runs.
//
// In: a *loader.Verified, a request, a directory that only the caller can write to.
// Out: an instance that runs on CPUs and memory of its own, looked after by the
// process that called Run, and a socket in its directory where other processes can
// stop it, resize it or watch its console. Refused: what the host does not have,
// what others hold, what the bundle does not claim; steps that an instance's state
// does not allow.
//
// There is no daemon. Whatever process dies, the next call of Recover gives back
// what was held; most calls make it first.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// Engine is a host that runs instances. Several processes may use the same directory.
type Engine struct {
	Dir      string // of the records, as in instance.Store; empty: nothing runs here
	Root     alloc.Root
	Reserve  alloc.Reserve // what the host keeps
	Backends []loader.Backend
	Log      *slog.Logger
}

// allocDir is where package alloc has its state, in an Engine's directory. The dot
// keeps it apart from instances.
const allocDir = ".alloc"

// ErrBackend says that a back end is not there, or cannot do what it is asked for.
var ErrBackend = errors.New("the back end cannot do that")

// Store returns the records.
func (e *Engine) Store() *instance.Store { return &instance.Store{Dir: e.Dir} }

// Host returns what takes CPUs from the host.
func (e *Engine) Host() *alloc.Host {
	return &alloc.Host{Root: e.Root, State: filepath.Join(e.Dir, allocDir)}
}

// backend returns the back end of a name.
func (e *Engine) backend(name manifest.Target) (loader.Backend, error) {
	i := slices.IndexFunc(e.Backends, func(b loader.Backend) bool { return b.Name() == name })
	if i < 0 {
		return nil, fmt.Errorf("%w: there is no back end %q on this host", ErrBackend, name)
	}
	return e.Backends[i], nil
}

// lock takes the directory's lock, after which nothing is held that nobody looks
// after.
func (e *Engine) lock(ctx context.Context) (*instance.Lock, error) {
	l, err := e.Store().Lock(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(e.Host().State, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		l.Unlock()
		return nil, err
	}
	if err := e.recover(ctx); err != nil {
		l.Unlock()
		return nil, fmt.Errorf("recovering: %w", err)
	}
	return l, nil
}

// Recover gives back what instances held that nobody looks after, and notes that they
// have failed: their supervisor was killed, or the host was rebooted. Those that outlived
// their supervisor go on, and keep what they hold.
func (e *Engine) Recover(ctx context.Context) error {
	if _, err := os.Lstat(e.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing ran here yet
	}
	l, err := e.lock(ctx)
	if err != nil {
		return err
	}
	l.Unlock()
	return nil
}

// recover does that under the directory's lock. Records that cannot be read keep
// nobody from work.
func (e *Engine) recover(ctx context.Context) error {
	left, err := e.Store().Reconcile(ctx, time.Now(), e.lives)
	if err != nil && !errors.Is(err, instance.ErrRecord) {
		return err
	}
	if err := e.Host().Recover(); err != nil {
		return err
	}
	for _, r := range left {
		if err := e.free(ctx, r.Name, recoverPatience); err != nil {
			return err
		}
	}
	held, err := e.Host().Held()
	if err != nil {
		return err
	}
	for _, h := range held {
		r, err := e.Store().Get(h.Owner)
		abandoned := err == nil && r.Supervisor == nil && r.Held.Empty()
		if abandoned || errors.Is(err, instance.ErrNotFound) {
			err = e.free(ctx, h.Owner, recoverPatience)
		}
		if err != nil && !errors.Is(err, instance.ErrRecord) {
			return err
		}
	}
	return nil
}

// GC recovers, and removes instances whose records are damaged, with what they held.
// It returns their names. Records of another version are another mortise's; for them,
// and for what cannot be removed, the error joins one error each. Strays are reported.
func (e *Engine) GC(ctx context.Context) ([]string, error) {
	if _, err := os.Lstat(e.Dir); errors.Is(err, fs.ErrNotExist) {
		e.reportStrays()
		return nil, nil
	}
	l, err := e.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	e.reportStrays()
	var removed []string
	var errs []error
	names, err := e.Store().Names()
	errs = append(errs, err)
	for _, name := range names {
		_, err := e.Store().Get(name)
		if errors.Is(err, instance.ErrRecord) && !foreign(err) {
			if err = e.discard(ctx, l, name); err == nil {
				removed = append(removed, name)
			}
		}
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// discard removes an instance whose record cannot be used.
func (e *Engine) discard(ctx context.Context, l *instance.Lock, name string) error {
	if instance.CheckName(name) == nil { // otherwise it never held anything
		if err := e.free(ctx, name, killTimeout); err != nil {
			return err
		}
	}
	return l.Discard(name)
}

func foreign(err error) bool { return errors.Is(err, strictjson.ErrVersion) }
