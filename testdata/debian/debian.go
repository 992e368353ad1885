// SPDX-License-Identifier: Apache-2.0

// Package debian boots Debian's own kernel under QEMU, for tests that need a host
// of their own: with cgroup v2, eight CPUs in four cores on two NUMA nodes, and
// interrupts that can be moved.
//
// The guest's root is this machine's, through 9p, under an overlay: everything is
// there by the same name and can be written to, and nothing comes back. What this
// machine changes later the guest may not see. /run is empty.
package debian

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// Command is what a guest is asked to run.
type Command struct {
	Args []string
	Env  []string // besides the guest's own, such as NAME=value
	Dir  string
}

// Result is what came of it.
type Result struct {
	Output string // standard output and error
	Status int    // of exit; 128 and the number of the signal; 127: it did not start
}

// Guest is a machine that runs, until its test ends.
type Guest struct {
	Console *e2e.Running // what the machine prints

	conn net.Conn
	in   *json.Decoder
	load []string // its kernel once more, with kexec(8)
}

// How long a machine may take to boot, and a command to end.
const (
	bootLimit = 2 * time.Minute
	runLimit  = 10 * time.Minute
	soakLimit = 2 * time.Hour
)

// Machine is what a guest can have that others have not.
type Machine struct {
	Kernel      string   // empty: Debian's; another one has all that it boots with built in
	CommandLine string   // more of it
	Args        []string // more of QEMU's options, such as devices
	Small       bool     // four CPUs, and neither nodes nor threads of a core
	Firmware    Firmware
}

// Boot starts a machine. It returns when the machine takes commands.
//
// Now and then, one in more than a hundred, an emulated machine hangs before its root is
// there. It is booted once more, and the log says so.
func (m *Machine) Boot(t e2e.T) *Guest {
	t.Helper()
	g, err := m.boot(t)
	if err != nil {
		t.Logf("the guest does not answer, and is booted again: %v", err)
		g, err = m.boot(t)
	}
	if err != nil {
		t.Fatalf("the guest does not answer: %v", err)
	}
	return g
}

// boot returns an error when the machine does not answer.
func (m *Machine) boot(t e2e.T) (*Guest, error) {
	t.Helper()
	began := time.Now()
	ours, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}

	found, err := filepath.Glob("/boot/vmlinuz-*-amd64")
	if err != nil || len(found) == 0 {
		t.Fatalf("no kernel of Debian's package linux-image-amd64, run 'make deps': %v", err)
	}
	kernel := slices.Max(found)
	release := strings.TrimPrefix(kernel, "/boot/vmlinuz-")
	modules := "/lib/modules/" + release
	if m.Kernel != "" {
		kernel, modules = m.Kernel, ""
	}
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := writeInitrd(t.Context(), initrd, modules); err != nil {
		t.Fatal(err)
	}
	// All emulated CPUs read one clock. On a busy machine, the kernel's watchdog calls their time
	// stamp counters unstable nevertheless, and mortise.ko refuses such a host. Nor is a CPU stuck
	// that this machine did not run for 20 s: what is stuck for good is still reported.
	line := "console=ttyS0 loglevel=4 panic=-1 mitigations=off tsc=reliable watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 " + m.CommandLine
	g := &Guest{&e2e.Running{}, ours, json.NewDecoder(ours), []string{"kexec", "-s", "-l", kernel, "--initrd=" + initrd, "--command-line=" + line}}
	ctx, cancel := context.WithCancel(context.Background())
	args := append(append(m.Firmware.Options(t), m.options()...), "-kernel", m.Firmware.sign(t, kernel), "-initrd", initrd, "-append", line,
		"-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap", "-device", "virtio-9p-pci,fsdev=root,mount_tag=lower",
		"-chardev", "socket,id=port,fd=3", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port")
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", append(args, m.Args...)...)
	qemu.ExtraFiles = []*os.File{theirs}
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that times out cleans nothing up
	qemu.Stdout, qemu.Stderr = g.Console, g.Console
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel() // kills it
		_ = qemu.Wait()
		ours.Close()
		if t.Failed() {
			t.Logf("the guest's console:\n%s", g.Console)
		}
	})
	theirs.Close() // so that we see it when QEMU ends
	defer g.deadline(t, bootLimit)()
	if err := g.in.Decode(&release); err != nil {
		cancel()
		return nil, err
	}
	t.Logf("Linux %s took %.1f s to boot", release, time.Since(began).Seconds())
	return g, nil
}

// options are QEMU's. It shows threads of a core on that vendor's alone.
func (m *Machine) options() []string {
	args := []string{"-accel", "tcg,thread=multi", "-cpu", "max,vendor=GenuineIntel", "-m", "2048",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"}
	if m.Small {
		return append(args, "-smp", "4")
	}
	args = append(args, "-smp", "8,sockets=2,cores=2,threads=2")
	for node, cpus := range []string{"0-3", "4-7"} {
		args = append(args, "-object", fmt.Sprintf("memory-backend-ram,id=ram%d,size=1024M", node),
			"-numa", fmt.Sprintf("node,nodeid=%d,cpus=%s,memdev=ram%d", node, cpus, node))
	}
	return append(args, "-numa", "dist,src=0,dst=1,val=20")
}

// Run runs a command as root, one at a time.
func (g *Guest) Run(t e2e.T, limit time.Duration, c Command) Result {
	t.Helper()
	defer g.deadline(t, limit)()
	var r Result
	g.Start(t, c)
	if err := g.in.Decode(&r); err != nil {
		t.Fatalf("the guest ended in %q: %v", c.Args, err)
	}
	return r
}

// Start starts a command, and does not wait for its end.
func (g *Guest) Start(t e2e.T, c Command) {
	t.Helper()
	if err := json.NewEncoder(g.conn).Encode(c); err != nil {
		t.Fatalf("asking the guest for %q: %v", c.Args, err)
	}
}

// Kill runs a command that ends the machine, and returns when that does not answer within
// the limit.
func (g *Guest) Kill(t e2e.T, limit time.Duration, c Command) {
	t.Helper()
	defer g.deadline(t, limit)()
	var r Result
	g.Start(t, c)
	if err := g.in.Decode(&r); err == nil {
		t.Fatalf("the guest goes on after %q: %+v", c.Args, r)
	}
}

// Kexec has the machine's kernel start the same one once more, and returns when that takes
// commands.
func (g *Guest) Kexec(t e2e.T) {
	t.Helper()
	if r := g.Run(t, time.Minute, Command{Args: g.load}); r.Status != 0 {
		t.Fatal(g.load, r)
	}
	defer g.deadline(t, bootLimit)()
	g.Start(t, Command{Args: []string{"kexec", "-e"}})
	var answer json.RawMessage
	if err := g.in.Decode(&answer); err != nil {
		t.Fatalf("the guest's next kernel does not answer: %v", err)
	}
	if answer[0] != '"' { // it is a Result, and no name of a kernel
		t.Fatalf("kexec -e: %s", answer)
	}
}

// deadline ends all waiting for the guest after the limit, and when the test's context ends
// before stop is called.
func (g *Guest) deadline(t e2e.T, limit time.Duration) (stop func() bool) {
	t.Helper()
	if err := g.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return context.AfterFunc(t.Context(), func() { _ = g.conn.SetDeadline(time.Now()) })
}

// inside is in the environment of a test that runs in a guest.
const inside = "TENON_GUEST"

// In calls f in a guest, where the program of this test runs again, with this test
// alone. In the guest, everything before the call is done again, too. devices are what
// else QEMU is given.
func In(t e2e.T, f func(), devices ...string) {
	t.Helper()
	(&Machine{Args: devices}).In(t, f)
}

// Inside says that this is a guest: what is only for the machine outside is not done again.
func Inside() bool { return os.Getenv(inside) != "" }

// In calls f in a guest of this kind.
func (m *Machine) In(t e2e.T, f func()) {
	t.Helper()
	if Inside() {
		f()
		return
	}
	limit := runLimit
	if e2e.Soak() {
		limit = soakLimit
	}
	r := m.Boot(t).Run(t, limit, Self(t, limit))
	t.Logf("in the guest:\n%s", r.Output)
	if r.Status != 0 || !strings.Contains(r.Output, "--- PASS: "+t.Name()+" ") {
		t.Errorf("it fails in the guest, status %d", r.Status)
	}
}

// Self is the command that runs this test, alone, in a guest, for as long at the most.
func Self(t e2e.T, limit time.Duration) Command {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{program, "-test.v", "-test.timeout", (limit - time.Minute).String(), "-test.run", "^" + t.Name() + "$"}
	return Command{Args: args, Env: append(os.Environ(), inside+"=1"), Dir: dir}
}

// pair is a connection, one end of it for QEMU.
func pair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	file := os.NewFile(uintptr(fds[0]), "guest")
	defer file.Close()
	theirs = os.NewFile(uintptr(fds[1]), "guest")
	if ours, err = net.FileConn(file); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// writeInitrd makes an initramfs of command guest and the modules that it needs for
// its root, if it needs any.
func writeInitrd(ctx context.Context, name, dir string) error {
	init := name + ".init"
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "github.com/tenon-build/tenon/testdata/debian/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	files := []string{init}
	if dir != "" {
		modules, err := modulesOf(dir, "virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
		if err != nil {
			return err
		}
		files = append(files, modules...)
	}

	tree := rootfs.New()
	for i, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		as := "init"
		if i > 0 {
			as = fmt.Sprintf("modules/%02d-%s", i, path.Base(file)) // in their order
		}
		if err := tree.Put(as, rootfs.NewFile(bytes.NewReader(data), int64(len(data)), 0o755)); err != nil {
			return err
		}
	}
	if err := tree.Put("dev/console", rootfs.NewDevice(5, 1, 0o600)); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = initramfs.Write(f, tree)
	return errors.Join(err, f.Close())
}

// modulesOf returns the files of modules and of what they depend on, in the order
// that they can be loaded in. See modules.dep(5).
func modulesOf(dir string, names ...string) ([]string, error) {
	text, err := os.ReadFile(dir + "/modules.dep")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		found := false
		for line := range strings.Lines(string(text)) {
			file, needs, _ := strings.Cut(line, ":")
			if path.Base(file) != name+".ko" {
				continue
			}
			found = true
			all := append([]string{file}, strings.Fields(needs)...)
			for _, file := range slices.Backward(all) { // what is needed first comes last
				if file = path.Join(dir, file); !slices.Contains(out, file) {
					out = append(out, file)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("%s/modules.dep has no %s.ko", dir, name)
		}
	}
	return out, nil
}
