// SPDX-License-Identifier: Apache-2.0

package cokernel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/session"
)

// instance is a guest, or one to be.
type instance struct {
	config  loader.Config
	object  *object
	console *os.File
	channel *os.File

	*session.Session // nil before it was started
	running          atomic.Bool
	killed           atomic.Bool
	resizing         sync.Mutex
}

func newInstance(o *object, c loader.Config) *instance {
	return &instance{config: c, object: o}
}

// port reads the control channel frame by frame, as the module wants.
type port struct {
	*os.File
	in *bufio.Reader
}

func newPort(f *os.File) *port { return &port{f, bufio.NewReaderSize(f, 4+control.MaxFrame)} }

func (p *port) Read(b []byte) (int, error) { return p.in.Read(b) }

// Start starts the guest.
func (i *instance) Start(ctx context.Context) error {
	if err := i.object.start(); err != nil {
		return fmt.Errorf("starting the first CPU: %w", err)
	}
	i.follow(ctx, time.Now(), false)
	return nil
}

// attach goes on with a guest that another process started.
func (i *instance) attach() error {
	s, err := i.object.status()
	if err != nil {
		return err
	}
	if s.state != stateRunning && s.state != stateEnded {
		return fmt.Errorf("the instance was not started: %w", fs.ErrNotExist)
	}
	if i.console, err = i.object.channel(streamConsole); err != nil {
		return err
	}
	if i.channel, err = i.object.channel(streamControl); err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return err
	}
	i.follow(context.Background(), time.Now().Add(time.Duration(int64(s.started)-now.Nano())), s.told != 0)
	return nil
}

// follow listens to the guest, which was started then, until it ends.
func (i *instance) follow(ctx context.Context, started time.Time, told bool) {
	i.running.Store(true)
	i.Session = session.New(&i.config, session.Guest{
		Console: i.console, Channel: newPort(i.channel), Told: told, Kill: i.Kill, Gone: i.object.wait,
	})
	i.Follow(ctx, started)
}

// Kill ends the guest at once.
func (i *instance) Kill() error {
	if !i.running.Load() {
		return nil
	}
	i.killed.Store(true)
	return i.object.stop()
}

// Wait waits for the guest's end.
func (i *instance) Wait() (*control.Exit, error) {
	if exit, err := i.Session.Wait(); exit != nil || err != nil {
		return exit, err
	}
	s, err := i.object.status()
	if errors.Is(err, unix.ENODEV) {
		s.end, err = endStopped, nil // and given back
	}
	switch {
	case err != nil:
		return nil, err
	case s.end == endPanic:
		return nil, errors.New("its kernel panicked")
	case s.end == endRestart:
		return nil, errors.New("its kernel restarted without an exit status of the app")
	case s.end == endStopped && i.killed.Load():
		return &control.Exit{Signal: int(unix.SIGKILL)}, nil
	case s.end == endStopped:
		return nil, errors.New("it was ended by somebody else")
	}
	return nil, errors.New("its kernel switched itself off without an exit status of the app")
}

// Close ends a guest that runs, and gives back all that the instance has. After an error,
// something of it is still there.
func (i *instance) Close() error {
	err := i.object.end()
	if err == nil && i.running.Load() {
		<-i.Ended()
	}
	return errors.Join(err, i.closeFiles())
}

func (i *instance) closeFiles() error {
	var errs []error
	for _, f := range []*os.File{i.console, i.channel, i.object.file} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// resizeTimeout is how long a guest may take for one CPU.
const resizeTimeout = 10 * time.Second

// Resize gives the guest the CPUs of a plan that it lacks, and takes those that the plan
// lacks from it.
func (i *instance) Resize(_ context.Context, p *alloc.Plan) error {
	i.resizing.Lock()
	defer i.resizing.Unlock()
	before, idle, err := i.cpus()
	if err != nil {
		return err
	}
	if err := i.resize(p.CPUs, p.Siblings); err != nil {
		if back := i.resize(before, idle); back != nil {
			return fmt.Errorf("%w, and going back to CPUs %s failed: %w", err, before, back)
		}
		return err
	}
	return nil
}

// cpus returns which CPUs the guest has, and which only keep others away from its cores.
func (i *instance) cpus() (used, idle alloc.CPUSet, err error) {
	s, err := i.object.status()
	if err != nil {
		return nil, nil, err
	}
	for n, cpu := range s.cpus[:s.cpuCount] {
		if s.idle&(1<<n) != 0 {
			idle = append(idle, int(cpu))
		} else {
			used = append(used, int(cpu))
		}
	}
	return alloc.NewCPUSet(used...), alloc.NewCPUSet(idle...), nil
}

func (i *instance) resize(used, idle alloc.CPUSet) error {
	hasUsed, hasIdle, err := i.cpus()
	if err != nil {
		return err
	}
	for _, cpu := range append(hasUsed.Minus(used), hasIdle.Minus(idle)...) {
		if err := i.object.give(cpu); err != nil {
			return fmt.Errorf("taking CPU %d from the guest: %w", cpu, agreed(err))
		}
	}
	if err := i.takeAll(idle.Minus(hasIdle), true); err != nil {
		return err
	}
	for _, cpu := range used.Minus(hasUsed) {
		if err := i.object.take(cpu, false); err != nil {
			return fmt.Errorf("giving CPU %d to the guest: %w", cpu, agreed(err))
		}
	}
	return nil
}

// agreed says what an error of asking the guest means.
func agreed(err error) error {
	for errno, text := range map[unix.Errno]string{
		unix.EAGAIN:    "it is still booting",
		unix.ETIMEDOUT: "it does not answer",
		unix.EPIPE:     "it is gone",
		unix.EBUSY:     "it boots on it, and has to keep it",
		unix.ENOSPC:    "it can have no more",
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return err
}
