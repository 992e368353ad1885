// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Report is the part of the probe's report that tests look at.
type Report struct {
	Args, Env, Addresses, Mounts, Kmsg, Writable []string
	PID, UID, GID, CPUs                          int
	Groups                                       []int
	Dir, Hostname, Release, Cmdline, MemTotal    string
	Self                                         string
	Files, Owners, Texts, Xattrs                 map[string]string
	NoFile                                       syscall.Rlimit
	Terminal                                     string
}

// ParseReport finds the report on a console.
func ParseReport(t T, console string) Report {
	t.Helper()
	for line := range strings.Lines(console) {
		if _, body, ok := strings.Cut(line, "REPORT "); ok {
			var r Report
			if err := json.Unmarshal([]byte(body), &r); err != nil {
				t.Fatalf("report: %v in %q", err, line)
			}
			return r
		}
	}
	t.Fatalf("no report on the console:\n%s", console)
	return Report{}
}

// Run boots a bundle with tenon run, to its end.
func Run(t T, ref string, args ...string) Outcome {
	t.Helper()
	return Tenon(t, runArgs(ref, args)...)
}

func runArgs(ref string, args []string) []string {
	return append(append([]string{"run", "--allow-unsigned", "--accel", "tcg"}, args...), ref)
}

// Running is a program that was started. What is written to it, both of the program's
// streams, is kept. The zero value keeps what anybody writes.
type Running struct {
	Cmd    *exec.Cmd
	mu     sync.Mutex
	output bytes.Buffer
}

func (r *Running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.Write(p)
}

// String is what was written, since Forget.
func (r *Running) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.String()
}

// Forget forgets what was written.
func (r *Running) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.output.Reset()
}

// Start boots a bundle with tenon run, until the test ends.
func Start(t T, ref string, args ...string) *Running {
	t.Helper()
	r := &Running{Cmd: exec.Command(Program(t, "tenon"), runArgs(ref, args)...)}
	r.Cmd.Stdout, r.Cmd.Stderr = r, r
	if err := r.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Cmd.Process.Kill(); _ = r.Cmd.Wait() })
	return r
}

// Expect waits until a text was written, for a minute, or until tenon failed.
func (r *Running) Expect(t T, text string) {
	t.Helper()
	for range 600 {
		if strings.Contains(r.String(), text) {
			return
		}
		if strings.Contains(r.String(), "tenon: error: ") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%q did not come:\n%s", text, r)
}

// SignalAndWait sends a signal and returns the exit status.
func (r *Running) SignalAndWait(t T, s syscall.Signal) int {
	t.Helper()
	if err := r.Cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	_ = r.Cmd.Wait()
	return r.Cmd.ProcessState.ExitCode()
}

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on.
func FreePort(t T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Boot boots a kernel under QEMU as a foreign boot loader would: no control channel, and
// whatever initrd and command line it likes. It returns what the machine printed in at
// most a minute.
func Boot(t T, args ...string) string {
	t.Helper()
	o := Execute(exec.CommandContext(t.Context(), "timeout", append([]string{"60", "qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "stdio", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="}, args...)...))
	return o.Stdout + o.Stderr
}
