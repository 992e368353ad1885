// SPDX-License-Identifier: Apache-2.0

package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open opens the same file once more, with a lock of its own.
func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLock(t *testing.T) {
	path := t.TempDir() + "/lock"
	holder := open(t, path)
	if err := Lock(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	other := open(t, path)
	if locked, err := Try(other); locked || err != nil {
		t.Errorf("%v, %v while it is held", locked, err)
	}
	ended, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Lock(ended, other); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	// With a context that never ends, and with one that may, whoever waits gets it.
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		waiter, got := open(t, path), make(chan error, 1)
		go func() { got <- Lock(ctx, waiter) }()
		select {
		case err := <-got:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		if err := holder.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		holder = waiter
	}
}

func TestShare(t *testing.T) {
	path := t.TempDir() + "/lock"
	one, two, alone := open(t, path), open(t, path), open(t, path)
	if locked, err := Try(one); !locked || err != nil {
		t.Fatalf("%v, %v", locked, err)
	}
	for _, f := range []*os.File{one, two} { // the first had it alone
		if err := Share(f); err != nil {
			t.Fatal(err)
		}
	}
	if locked, err := Try(alone); locked || err != nil {
		t.Errorf("%v, %v while others share it", locked, err)
	}
}

func TestNotAFile(t *testing.T) {
	f := open(t, t.TempDir()+"/lock")
	f.Close()
	if locked, err := Try(f); locked || err == nil {
		t.Errorf("%v, %v of a file that is closed", locked, err)
	}
}

// Whoever waits is told for whom.
func TestHolder(t *testing.T) {
	path := t.TempDir() + "/lock"
	if got := Holder(open(t, path)); got != "somebody" {
		t.Errorf("without one: %q", got)
	}
	cmd := exec.Command("flock", "--no-fork", path, "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	f := open(t, path)
	for locked, err := Try(f); locked; locked, err = Try(f) {
		if err != nil || unix.Flock(int(f.Fd()), unix.LOCK_UN) != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	want := fmt.Sprintf("process %d %q", cmd.Process.Pid, "sleep")
	expect := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); Holder(f) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got %s, want %s", Holder(f), want)
			}
		}
	}
	expect(want)
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	expect(want + " that is stopped")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := Lock(ctx, f); err == nil || err.Error() != fmt.Sprintf("waiting for %s that is stopped, who has the lock of %q: context deadline exceeded", want, path) {
		t.Errorf("got %v", err)
	}
}
