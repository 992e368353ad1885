// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSetCPUs(t *testing.T) {
	sys := t.TempDir()
	dir := func(cpu int) string { return sys + "/devices/system/cpu/cpu" + strconv.Itoa(cpu) }
	online := func(cpu int) string { return dir(cpu) + "/online" }
	add := func(cpu int) { // at once, as the kernel does
		next := sys + "/next"
		if err := errors.Join(os.Mkdir(next, 0o755), os.WriteFile(next+"/online", nil, 0o600), os.Rename(next, dir(cpu))); err != nil {
			t.Error(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		got := ""
		for cpu := 1; ; cpu++ {
			b, err := os.ReadFile(online(cpu))
			if err != nil {
				break
			}
			got += string(b)
		}
		if got != want {
			t.Errorf("online are %q, want %q", got, want)
		}
	}
	if err := os.MkdirAll(sys+"/devices/system/cpu", 0o755); err != nil {
		t.Fatal(err)
	}
	add(1)
	go func() { // one comes late
		time.Sleep(20 * time.Millisecond)
		add(2)
	}()
	if err := setCPUs(sys, 3, time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
	expect("11")
	if err := setCPUs(sys, 1, time.Now()); err != nil {
		t.Error(err)
	}
	expect("00")
	if err := setCPUs(sys, 4, time.Now().Add(5*time.Millisecond)); !errors.Is(err, unix.ENOENT) || err.Error() != "bringing CPU 3 online: no such file or directory" {
		t.Errorf("one that does not come: %v", err)
	}
	expect("11")
	if err := errors.Join(os.Remove(online(2)), os.Symlink(online(2), online(2))); err != nil {
		t.Fatal(err)
	}
	if err := setCPUs(sys, 1, time.Now()); !errors.Is(err, unix.ELOOP) {
		t.Errorf("one that stays: %v", err)
	}
}
