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
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

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

	Tell time.Duration // after how long it is said what is waited for, and said again; 0: 10 s
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

// lock takes the directory's lock, after which nothing is held that nobody looks after. What
// could not be done for an instance keeps nobody from work on others: own is what concerns
// the one of that name, unless its record cannot be read; of the others, it is reported.
func (e *Engine) lock(ctx context.Context, name string) (l *instance.Lock, own, err error) {
	if l, err = e.lockDir(ctx); err != nil {
		return nil, nil, err
	}
	sick, err := e.recover(ctx)
	if err != nil {
		l.Unlock()
		return nil, nil, fmt.Errorf("recovering: %w", err)
	}
	for _, other := range slices.Sorted(maps.Keys(sick)) {
		switch why := sick[other]; {
		case errors.Is(why, instance.ErrRecord):
		case other == name:
			own = why
		default:
			e.Log.Warn("an instance could not be looked after", "why", why)
		}
	}
	return l, own, nil
}

// lookPatience is how long whoever only looks waits for the directory's lock.
const lookPatience = 2 * time.Second

// Recover gives back what instances held that nobody looks after, and notes that they
// have failed: their supervisor was killed, or the host was rebooted. Those that outlived
// their supervisor go on, and keep what they hold. What cannot be done is reported, and
// left to the next one, also where somebody has the directory's lock for long; the error is of
// the directory, or of the instance of that name, which may be empty.
func (e *Engine) Recover(ctx context.Context, name string) error {
	if _, err := os.Lstat(e.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing ran here yet
	}
	brief, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	l, own, err := e.lock(brief, name)
	if err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		e.Log.Warn("nothing is given back now of what nobody looks after", "why", err)
		return nil
	}
	if err != nil {
		return err
	}
	l.Unlock()
	return own
}

// notePatience is how long recover waits for locks of records, of all together.
const notePatience = 250 * time.Millisecond

// recover does that under the directory's lock, and returns by name the instances of which it
// could not.
func (e *Engine) recover(ctx context.Context) (sick map[string]error, err error) {
	ctx, cancel := context.WithTimeout(ctx, recoverPatience)
	defer cancel()
	free := func(records []*instance.Record) map[string]error {
		var names []string
		for _, r := range records {
			names = append(names, r.Name)
		}
		return e.freeAll(ctx, names)
	}
	brief, done := context.WithTimeout(ctx, notePatience)
	defer done()
	_, sick, err = e.Store().Reconcile(brief, time.Now(), func(r *instance.Record) bool { return e.lives(ctx, r) }, free)
	if err != nil {
		return nil, err
	}
	if err := e.Host().Recover(ctx); err != nil {
		e.Log.Warn("what is held could not be put in order", "why", err)
	}
	held, err := e.Host().Held()
	if err != nil {
		return sick, nil // said above
	}
	var left []string
	for _, h := range held {
		r, err := e.Store().Get(h.Owner)
		if err == nil && r.Supervisor == nil && r.Held.Empty() || errors.Is(err, instance.ErrNotFound) {
			left = append(left, h.Owner)
		}
	}
	e.freeAll(ctx, left)
	return sick, nil
}

// freeAll gives back what instances held that nobody looks after. What it cannot, it reports; the
// next one tries again.
func (e *Engine) freeAll(ctx context.Context, names []string) (kept map[string]error) {
	kept = e.releaseAll(ctx, names, recoverPatience)
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		why := kept[name]
		switch {
		case errors.Is(why, alloc.ErrUnsaved):
			delete(kept, name) // whoever finds it in the journal releases it again
			e.Log.Warn("what an instance held is given back, but nobody gets it before that can be noted", "instance", name, "why", why)
		case errors.Is(why, unix.EBUSY) || errors.Is(why, errKept):
			e.Log.Warn("an instance without a supervisor cannot be ended yet", "instance", name, "why", why)
		default:
			e.Log.Warn("what an instance held cannot be given back yet", "instance", name, "why", why)
		}
	}
	return kept
}

// GC recovers, and removes instances whose records are damaged, with what they held.
// It returns their names. Records of another version are another mortise's; for them,
// and for what cannot be removed, the error joins one error each. Strays are reported.
func (e *Engine) GC(ctx context.Context) ([]string, error) {
	if _, err := os.Lstat(e.Dir); errors.Is(err, fs.ErrNotExist) {
		e.reportStrays()
		return nil, nil
	}
	l, _, err := e.lock(ctx, "")
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
		if err := e.free(ctx, name); err != nil {
			return err
		}
	}
	return l.Discard(name)
}

func foreign(err error) bool { return errors.Is(err, strictjson.ErrVersion) }
