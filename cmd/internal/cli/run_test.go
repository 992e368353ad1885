// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// The first signal counts whatever it is and whenever it came; after it, only Ctrl-C does.
func TestSignals(t *testing.T) {
	s := CatchSignals()
	calls := make(chan string, 8)
	send := func(signal syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), signal); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-calls:
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not called", want)
		}
	}
	send(syscall.SIGTERM) // before anybody reacts
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		s.React(func() { calls <- "first" }, func() { calls <- "again" })
	}()
	expect("first")
	send(syscall.SIGTERM)
	send(syscall.SIGINT)
	expect("again")
	send(syscall.SIGINT)
	expect("again")
	s.Release()
	<-returned
	if len(calls) > 0 {
		t.Errorf("and %s was called", <-calls)
	}
}
