// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// workerEnv makes the test binary a worker: "SEED OPERATIONS DIR".
const workerEnv = "TENON_INSTANCE_WORKER"

const (
	counter    = "counter" // an instance that everybody counts in
	hostCPUs   = 16
	operations = 200 // of each worker
	workers    = 4
)

var workerNames = strings.Fields("a b c d e f g h i j")

// worker uses a store as mortise would, at random.
type worker struct {
	*rand.Rand
	store *Store
	self  *Process
	now   time.Time
}

// work does so, and writes a line after each operation: "counted" or "done". What
// must not happen ends it with exit status 1.
func work() {
	seed, rest, _ := strings.Cut(os.Getenv(workerEnv), " ")
	n, dir, _ := strings.Cut(rest, " ")
	number, _ := strconv.ParseUint(seed, 10, 64)
	count, _ := strconv.Atoi(n)
	self, err := Identify(os.Getpid())
	w := &worker{rand.New(rand.NewPCG(number, 0)), &Store{Dir: dir}, self, time.Now()}
	for i := 0; err == nil && i < count; i++ {
		line := "done"
		switch w.IntN(8) {
		case 0:
			line = "counted"
			err = w.update(counter, func(r *Record) error { r.Held.Memory[0].Bytes++; return nil })
		case 1, 2:
			err = w.locked(w.create)
		case 3:
			err = w.locked(w.start)
		case 4:
			err = w.update(w.name(), func(r *Record) error { return r.Transition(Running, w.now) })
		case 5:
			err = w.update(w.name(), w.end)
		case 6:
			err = w.locked(func(l *Lock) error { return w.allowed(l.Remove(context.Background(), w.name())) })
		case 7:
			err = w.locked(func(*Lock) error { return w.recover() })
		}
		if err == nil {
			fmt.Println(line)
		}
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func (w *worker) name() string { return workerNames[w.IntN(len(workerNames))] }

// allowed passes on what must not happen.
func (w *worker) allowed(err error) error {
	var e *TransitionError
	if errors.As(err, &e) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) || errors.Is(err, ErrHolding) {
		return nil
	}
	return err
}

func (w *worker) update(name string, change func(*Record) error) error {
	_, err := w.store.Update(context.Background(), name, change)
	return w.allowed(err)
}

func (w *worker) locked(do func(l *Lock) error) error {
	l, err := w.store.Lock(context.Background())
	if err != nil {
		return err
	}
	defer l.Unlock()
	return do(l)
}

// plan takes free CPUs, under the directory's lock.
func (w *worker) plan() (Held, error) {
	list, err := w.store.List()
	if err != nil {
		return Held{}, err
	}
	taken, err := holders(list)
	for cpu := range hostCPUs {
		if taken[strconv.Itoa(cpu)] == "" {
			return Held{CPUs: strconv.Itoa(cpu)}, err
		}
	}
	return Held{}, err
}

// holders returns who holds which CPU; that two do is an error.
func holders(list []*Record) (map[string]string, error) {
	taken := map[string]string{}
	for _, r := range list {
		if cpu := r.Held.CPUs; cpu != "" {
			if other := taken[cpu]; other != "" {
				return nil, fmt.Errorf("CPU %s is held by %s and %s", cpu, other, r.Name)
			}
			taken[cpu] = r.Name
		}
	}
	return taken, nil
}

func (w *worker) create(l *Lock) (err error) {
	r := bundled(w.name())
	if r.Held, err = w.plan(); err != nil {
		return err
	}
	r.Supervisor = w.self
	return w.allowed(l.Create(r, w.now))
}

func (w *worker) start(*Lock) error {
	held, err := w.plan()
	if err != nil {
		return err
	}
	return w.update(w.name(), func(r *Record) error {
		if r.Held.Empty() {
			r.Held = held
		}
		r.Supervisor = w.self
		return r.Transition(Loaded, w.now)
	})
}

// end stops, fails, or gives back.
func (w *worker) end(r *Record) error {
	switch {
	case r.ended():
		r.Held, r.Supervisor = Held{}, nil
		return nil
	case w.IntN(2) == 0:
		return r.Fail("at random", w.now)
	}
	return r.Transition(Stopped, w.now)
}

func (w *worker) recover() error {
	list, sick, err := w.store.Reconcile(context.Background(), w.now, none, nil)
	for _, why := range sick {
		err = errors.Join(err, why)
	}
	for _, r := range list {
		err = errors.Join(err, w.update(r.Name, func(r *Record) error { r.Held, r.Supervisor = Held{}, nil; return nil }))
	}
	return err
}

// tally is what was seen of the workers.
type tally struct {
	sync.Mutex
	operations, counted, kills int
}

// employ has one worker do its operations. Now and then it is killed, wherever it is,
// and another one goes on.
func (all *tally) employ(dir string, rng *rand.Rand) error {
	for left := operations; left > 0; {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %s", workerEnv, rng.Uint64(), left, dir))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return err
		}
		until, killed := 1+rng.IntN(30), false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			switch line := lines.Text(); line {
			case "counted", "done":
				all.Lock()
				all.operations++
				if line == "counted" {
					all.counted++
				}
				all.Unlock()
			default:
				err = errors.New(line)
			}
			left--
			if until--; until == 0 && left > 0 {
				time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
				killed = true
				cmd.Process.Kill() //nolint:errcheck // it may be done
			}
		}
		waited := cmd.Wait()
		if err == nil && waited != nil && !killed {
			err = waited
		}
		if err != nil {
			return err
		}
		if killed {
			all.Lock()
			all.kills++
			all.Unlock()
		}
	}
	return nil
}

// Four processes at once do what they like and are killed in the middle of it. No
// CPU is ever held twice, no record is ever damaged, no update is lost, and in the end
// everything can be given back.
func TestWorkers(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := newStore(t)
	create(t, s, counter)
	update(t, s, counter, func(r *Record) { r.Held.Memory = []Memory{{0, 1}} })

	var all tally
	done := make(chan error, workers)
	for i := range workers {
		go func() { done <- all.employ(s.Dir, rand.New(rand.NewPCG(seed, uint64(i)))) }()
	}
	looks := 0
	for busy := workers; busy > 0; {
		select {
		case err := <-done:
			busy--
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Millisecond):
			looks++
			if _, err := s.List(); err != nil {
				t.Errorf("seen meanwhile: %v", err)
			}
		}
	}
	unfinished, err := filepath.Glob(s.Path("*/.record.json*"))
	t.Logf("%d operations, %d kills, %d looks; %d unfinished writes are still there: %v", all.operations, all.kills, looks, len(unfinished), err)
	if all.kills < workers*3 || all.operations < workers*operations {
		t.Errorf("%d operations, %d kills", all.operations, all.kills)
	}

	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holders(list); err != nil {
		t.Error(err)
	}
	count, err := s.Get(counter)
	if err != nil {
		t.Fatal(err)
	}
	if n := int(count.Held.Memory[0].Bytes) - 1; n < all.counted || n > all.counted+all.kills {
		t.Errorf("counted %d, want %d, or up to %d more", n, all.counted, all.kills)
	}

	release, _, err := s.Reconcile(t.Context(), time.Now(), none, nil)
	if err != nil {
		t.Error(err)
	}
	update(t, s, counter, func(r *Record) { r.Held = Held{} })
	for _, r := range release {
		update(t, s, r.Name, func(r *Record) { r.Held, r.Supervisor = Held{}, nil })
	}
	locked(t, s, func(l *Lock) {
		for _, r := range list {
			if err := l.Remove(t.Context(), r.Name); err != nil {
				t.Error(err)
			}
		}
	})
	if got := tree(t, s.Dir); len(got) != 1 {
		t.Errorf("left %q", slices.Sorted(slices.Values(got)))
	}
}
