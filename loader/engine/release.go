// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
)

// Kill ends an instance at once: by its supervisor, or, where that does not answer,
// together with it.
func (e *Engine) Kill(ctx context.Context, name string) error {
	r, err := e.Store().Get(name)
	if err == nil {
		err = r.CheckState("kill", instance.Running, instance.Loaded)
	}
	if err != nil {
		return err
	}
	if alive, err := r.Supervisor.Alive(); err != nil {
		return fmt.Errorf("instance %q: its supervisor: %w", name, err)
	} else if alive {
		err := e.call(ctx, name, &call{Verb: "signal", Signal: int(unix.SIGKILL)}, killTimeout)
		if err == nil || errors.As(err, new(*instance.TransitionError)) { // it ended meanwhile
			return nil
		}
	}
	if err := killProcess(r.Supervisor); err != nil {
		return fmt.Errorf("instance %q: killing its supervisor: %w", name, err)
	}
	return e.killUnattended(ctx, name)
}

// killProcess kills a process and waits until it is gone.
func killProcess(p *instance.Process) error {
	if p == nil {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if alive, err := p.Alive(); err != nil || !alive { // now it cannot become another one
		return err
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, int(killTimeout.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("process %d does not end within %v", p.PID, killTimeout)
		default:
			return nil
		}
	}
}

// recoverPatience is how long what does not end may keep others from work, all of it together. Its
// instance goes on to hold what it holds.
const recoverPatience = time.Second

// free ends what is left of an instance whose record cannot be used, and gives back what it
// held. What cannot be ended is reported, and tried again by the next one.
func (e *Engine) free(ctx context.Context, name string) error {
	err := e.release(ctx, name)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, errKept) {
		e.Log.Warn("an instance without a supervisor cannot be ended yet", "instance", name, "why", err)
		return nil
	}
	if errors.Is(err, alloc.ErrUnsaved) {
		return nil
	}
	return err
}

// killTimeout is how long processes may take to go after SIGKILL.
const killTimeout = 10 * time.Second

// release gives CPUs back, after the back end has given back what it took of them. What still runs on them is killed: a back end's processes die
// with their supervisor, but not at once, and KVM's own threads some time after them.
//
// A name that this directory holds nothing for may be in use by another's.
func (e *Engine) release(ctx context.Context, name string) error {
	return e.releaseAll(ctx, []string{name}, killTimeout)[name]
}

// releaseAll is release for several instances, which together have so much time. It returns the
// errors by name.
func (e *Engine) releaseAll(ctx context.Context, names []string, patience time.Duration) map[string]error {
	errs := map[string]error{}
	if len(names) == 0 {
		return errs
	}
	held, err := e.Host().Held()
	if err != nil {
		for _, name := range names {
			errs[name] = err
		}
		return errs
	}
	deadline := time.Now().Add(patience)
	var left []string
	offline := map[string]bool{}
	for i := range held {
		name, p := held[i].Owner, &held[i].Plan
		if !slices.Contains(names, name) {
			continue
		}
		if err := e.handBack(ctx, p.ID, patience); err != nil {
			errs[name] = err
			continue
		}
		left, offline[name] = append(left, name), p.TakenOffline()
	}
	for {
		left = slices.DeleteFunc(left, func(name string) bool {
			if !offline[name] {
				if err := e.killGroup(name); err != nil {
					errs[name] = err
				}
			}
			return errs[name] != nil
		})
		done := e.Host().ReleaseAll(ctx, left)
		late := time.Now().After(deadline) || ctx.Err() != nil
		left = slices.DeleteFunc(left, func(name string) bool {
			if errors.Is(done[name], unix.EBUSY) && !late {
				return false
			}
			if done[name] != nil {
				errs[name] = done[name]
			}
			return true
		})
		if len(left) == 0 {
			return errs
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// cleared notes that an instance holds nothing and has nobody.
func (e *Engine) cleared(ctx context.Context, name string) error {
	_, err := e.Store().Update(ctx, name, func(r *instance.Record) error {
		r.Held, r.Supervisor = instance.Held{}, nil
		return nil
	})
	return err
}

// killGroup kills what runs on an instance's CPUs.
func (e *Engine) killGroup(name string) error {
	group, err := e.Host().Group(name)
	if err != nil {
		return err
	}
	pids, err := e.Root.ReadFile(group + "/cgroup.procs")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	for _, pid := range strings.Fields(string(pids)) {
		if err := kill(pid); err != nil {
			return fmt.Errorf("instance %q: killing process %s: %w", name, pid, err)
		}
	}
	return err
}

func kill(pid string) error {
	var n int
	if _, err := fmt.Sscan(pid, &n); err != nil || n < 2 {
		return fmt.Errorf("it is no process of ours: %w", unix.EINVAL)
	}
	if err := unix.Kill(n, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}
