// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/tenon-build/tenon/testdata/e2e"
)

// job is the e2e.T of a comparison. As with package testing, Fatal ends the goroutine of
// what is tried, the log is shown when something fails, and functions given to Cleanup are
// called in the end, the last one first.
type job struct {
	comparison comparison
	progress   *progress
	parent     context.Context // of the program

	mu       sync.Mutex
	ctx      context.Context // of what is tried
	errs     []string        // of what is tried
	failing  bool            // something failed before
	log      strings.Builder
	cleanups []func()
}

var _ e2e.T = (*job)(nil)

func newJob(ctx context.Context, p *progress, c comparison) *job {
	return &job{comparison: c, progress: p, parent: ctx, ctx: ctx}
}

var errInterrupted = errors.New("interrupted")

// try calls f in a goroutine and returns how it failed: by Error or Fatal, or by a panic.
// Its context ends with the program's, and after the limit.
func (j *job) try(limit time.Duration, f func()) error {
	ctx, cancel := context.WithTimeout(j.parent, limit)
	defer cancel()
	if ctx.Err() != nil {
		return errInterrupted
	}
	j.mu.Lock()
	j.ctx, j.errs = ctx, nil
	j.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				j.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		f()
	}()
	<-done

	j.mu.Lock()
	err := strings.Join(j.errs, "\n")
	j.mu.Unlock()
	switch {
	case err == "":
		return nil
	case j.parent.Err() != nil:
		return errInterrupted
	case ctx.Err() != nil:
		err = fmt.Sprintf("not done after %v: %s", limit, err)
	}
	j.say("error: " + err)
	return errors.New(err)
}

// end cleans up, also when the program was interrupted. It shows the log of a failure.
func (j *job) end() error {
	interrupted := j.parent.Err() != nil
	j.parent = context.WithoutCancel(j.parent)
	var all error
	for len(j.cleanups) > 0 {
		last := len(j.cleanups) - 1
		f := j.cleanups[last]
		j.cleanups = j.cleanups[:last]
		all = errors.Join(all, j.try(time.Minute, f))
	}
	if j.failing && !interrupted && j.log.Len() > 0 {
		j.say("its log:\n" + j.log.String())
	}
	return all
}

// step says what is done from now on.
func (j *job) step(format string, args ...any) {
	j.now(format, args...)
	j.say(fmt.Sprintf(format, args...))
}

// now notes what is done from now on: it is said when it takes long.
func (j *job) now(format string, args ...any) {
	j.progress.now(j.Name() + ": " + fmt.Sprintf(format, args...))
}

func (j *job) say(text string) { j.progress.say(j.Name() + ": " + strings.TrimSpace(text)) }

func (j *job) record(text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.errs, j.failing = append(j.errs, strings.TrimSpace(text)), true
}

// The rest is as package testing has it.

func (j *job) Helper()                      {}
func (j *job) Name() string                 { return j.comparison.name }
func (j *job) Log(args ...any)              { j.write(fmt.Sprintln(args...)) }
func (j *job) Logf(f string, args ...any)   { j.write(fmt.Sprintf(f, args...) + "\n") }
func (j *job) Error(args ...any)            { j.record(fmt.Sprintln(args...)) }
func (j *job) Errorf(f string, args ...any) { j.record(fmt.Sprintf(f, args...)) }
func (j *job) Fatal(args ...any)            { j.Error(args...); runtime.Goexit() }
func (j *job) Fatalf(f string, args ...any) { j.Errorf(f, args...); runtime.Goexit() }
func (j *job) Cleanup(f func())             { j.cleanups = append(j.cleanups, f) }
func (j *job) Failed() bool                 { j.mu.Lock(); defer j.mu.Unlock(); return j.failing }
func (j *job) Context() context.Context     { j.mu.Lock(); defer j.mu.Unlock(); return j.ctx }
func (j *job) write(text string)            { j.mu.Lock(); defer j.mu.Unlock(); j.log.WriteString(text) }

func (j *job) TempDir() string {
	dir, err := os.MkdirTemp("", "tenon-bench-")
	if err != nil {
		j.Fatal(err)
	}
	j.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			j.Error(err)
		}
	})
	return dir
}

func (j *job) Setenv(name, value string) {
	before, was := os.LookupEnv(name)
	if err := os.Setenv(name, value); err != nil {
		j.Fatal(err)
	}
	j.Cleanup(func() {
		if was {
			_ = os.Setenv(name, before)
		} else {
			_ = os.Unsetenv(name)
		}
	})
}
