// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// asleep starts a process that only waits.
func asleep(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may be gone
		cmd.Wait()         //nolint:errcheck
	})
	return cmd
}

func identify(t *testing.T, pid int) *Process {
	t.Helper()
	p, err := Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAlive(t *testing.T) {
	alive := func(name string, p *Process, want bool) {
		t.Helper()
		if got, err := p.Alive(); err != nil || got != want {
			t.Errorf("%s: alive is %v, %v", name, got, err)
		}
	}
	self := identify(t, os.Getpid())
	alive("this process", self, true)
	alive("an older one of that number", &Process{self.PID, self.Start - 1, self.BootID}, false)
	alive("one of another boot", &Process{self.PID, self.Start, "another"}, false)

	cmd := asleep(t)
	child := identify(t, cmd.Process.Pid)
	alive("a child", child, true)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 1000 { // a zombie until Wait
		if ok, err := child.Alive(); err != nil || !ok {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	alive("a zombie", child, false)
	if state, _, err := stat(child.PID); state != 'Z' || err != nil {
		t.Errorf("not a zombie: %c, %v", state, err)
	}
	cmd.Wait() //nolint:errcheck // it was killed
	alive("one that is gone", child, false)
	if p, err := Identify(child.PID); err == nil {
		t.Errorf("identified %+v", p)
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n"
	for _, name := range []string{"mortise", "a b", "a) R 1 (b", ")", ""} {
		if state, start, err := parseStat([]byte("12 (" + name + ") S" + rest)); state != 'S' || start != 4711 || err != nil {
			t.Errorf("%q: %c, %d, %v", name, state, start, err)
		}
	}
	for _, data := range []string{"", ")", "12 (x) S 1 2 3", "12 (x) SS" + rest, "12 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -1 20"} {
		if _, _, err := parseStat([]byte(data)); err == nil {
			t.Errorf("%q is accepted", data)
		}
	}
}
