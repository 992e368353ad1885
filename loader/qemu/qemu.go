// SPDX-License-Identifier: Apache-2.0

// Package qemu is the back end for development and CI: an instance is a
// virtual machine.
//
// Nothing of an instance has a name of its own in the file system: kernel and initramfs
// are the sealed memory of the verified bundle, which QEMU reads through /proc, console
// and control channel are socket pairs that QEMU inherits. QEMU is never root.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/session"
)

// ErrNoQEMU says that QEMU is not on this machine.
var ErrNoQEMU = errors.New("qemu-system-x86_64 not found")

// Backend runs bundles under QEMU.
type Backend struct {
	Accel string // KVM, TCG, or empty: KVM if a guest really starts under it
	Log   *slog.Logger
}

// Name returns manifest.QEMU.
func (b *Backend) Name() manifest.Target { return manifest.QEMU }

var (
	cpuModels = map[string]string{KVM: "host", TCG: "max"}
	accelArgs = map[string]string{KVM: "kvm", TCG: "tcg,thread=multi"}
)

// The addresses of QEMU's user-mode network, which needs no rights.
const (
	guestAddress  = "10.0.2.15/24"
	guestGateway  = "10.0.2.2"
	guestResolver = "10.0.2.3"
)

// Can says that devices alone cannot be given.
func (b *Backend) Can() loader.Capabilities {
	return loader.Capabilities{
		Several: true, Resize: true, Input: true, Forwards: true, Network: true,
		Isolation: "instances are virtual machines, for development and CI: their CPUs are kept by cpusets, their memory by QEMU and the MMU; QEMU itself runs as a user that no account has, without capabilities (but to listen at ports below 1024), and may start no program; caches, memory bandwidth and devices are shared",
	}
}

// Check returns ErrNoQEMU, or nil.
func (b *Backend) Check() error {
	_, err := findQEMU()
	return err
}

func findQEMU() (string, error) {
	program, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return "", ErrNoQEMU
	}
	return program, nil
}

// Load prepares the virtual machine.
func (b *Backend) Load(ctx context.Context, v *loader.Verified, c loader.Config) (loader.Instance, error) {
	if err := c.Resolve(b.Name(), v.Manifest()); err != nil {
		return nil, err
	}
	if err := checkPlan(&c); err != nil {
		return nil, err
	}
	program, err := findQEMU()
	if err != nil {
		return nil, err
	}
	accel := b.Accel
	if accel == "" {
		accel = KVM
		if err := ProbeKVM(ctx, program); err != nil {
			accel = TCG
			b.Log.Info("emulating the CPU (TCG)", "why not KVM", err)
		} else {
			b.Log.Info("using KVM")
		}
	}
	i := &instance{config: c, gone: make(chan struct{})}
	if err := i.prepare(program, accel, v); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

// instance is one QEMU process.
type instance struct {
	config  loader.Config
	network bool
	cmd     *exec.Cmd
	files   []*os.File // what QEMU inherits, from descriptor 3 on
	images  *keeper    // of what QEMU reads while it starts
	console *os.File
	channel *os.File
	qmp     *os.File // nil without a plan
	stderr  tail

	*session.Session
	gone    chan struct{} // closed when QEMU is
	waitErr error         // of QEMU; valid then

	process atomic.Pointer[os.Process] // nil before it is started

	resizing sync.Mutex
	monitor  *monitor     // on qmp; nil before it is started
	cpus     alloc.CPUSet // that it runs on

	killed atomic.Bool
}

// tail keeps the last of what is written to it.
type tail []byte

const tailSize = 4096

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-tailSize):]
	return len(p), nil
}

func (i *instance) prepare(program, accel string, v *loader.Verified) error {
	m := v.Manifest()
	i.network = m.Claims.Device("net") != nil
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-name", m.Name,
		"-machine", "q35,smm=off,vmport=off,sata=off,smbus=off",
		"-accel", accelArgs[accel], "-cpu", cpuModels[accel],
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
	}
	if i.config.Plan == nil {
		args = append(args, "-smp", fmt.Sprint(i.config.CPUs), "-m", fmt.Sprintf("%dM", i.config.Memory>>20))
	} else {
		args = append(args, planArgs(&i.config, hostHasNodes())...)
	}
	var listens forwards
	for _, f := range i.config.Forwards {
		listens = append(listens, f.HostPort)
	}
	rights, err := newRights(listens)
	if err != nil {
		return err
	}
	var images []string
	if i.images, images, err = rights.keep(v.Kernel(), v.Initramfs()); err != nil {
		return err
	}
	args = append(args, "-kernel", images[0], "-initrd", images[1])
	if !m.Initramfs.Sealed {
		args = append(args, "-append", m.CommandLine)
	}
	type socket struct {
		id     string
		file   **os.File
		device []string
	}
	sockets := []socket{
		{"console", &i.console, []string{"-serial", "chardev:console"}},
		{"control", &i.channel, []string{"-device", "virtserialport,chardev=control,name=" + control.PortName}},
	}
	if i.config.Plan != nil {
		sockets = append(sockets, socket{"qmp", &i.qmp, []string{"-mon", "chardev=qmp,mode=control"}})
	}
	for _, s := range sockets {
		fd, err := i.socket(s.file)
		if err != nil {
			return err
		}
		args = append(append(args, "-chardev", fmt.Sprintf("socket,id=%s,fd=%d", s.id, fd)), s.device...)
	}
	if i.network {
		netdev := "user,id=net0"
		for _, f := range i.config.Forwards {
			netdev += fmt.Sprintf(",hostfwd=%s:%s:%d-:%d", f.Protocol, f.HostAddress, f.HostPort, f.GuestPort)
		}
		args = append(args, "-netdev", netdev, "-device", "virtio-net-pci,netdev=net0,romfile=")
	}
	i.Session = session.New(&i.config, session.Guest{
		Console: i.console, Channel: i.channel, Configure: i.configure, Kill: i.Kill, Gone: func() { <-i.gone },
	})
	i.cmd = exec.Command(program, args...)
	i.cmd.ExtraFiles = i.files
	i.cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // a machine has no use for our secrets
	i.cmd.Stderr = &i.stderr
	i.cmd.Dir = "/"
	i.cmd.SysProcAttr = rights.attributes()
	return nil
}

// socket makes a socket pair: one end is ours, the other QEMU's, of which the
// descriptor there is returned.
func (i *instance) socket(ours **os.File) (int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socketpair: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return 0, err
	}
	*ours = os.NewFile(uintptr(fds[0]), "socket")
	i.files = append(i.files, os.NewFile(uintptr(fds[1]), "socket"))
	return 2 + len(i.files), nil
}

// Start starts QEMU. With a plan, it returns when QEMU has all of its memory and the
// guest begins.
func (i *instance) Start(ctx context.Context) error {
	started := time.Now()
	ended, err := i.launch()
	if err != nil {
		return fmt.Errorf("starting %s: %w", i.cmd.Path, err)
	}
	closeAll(&i.files)
	go func() {
		i.waitErr = <-ended
		close(i.gone)
	}()
	i.Follow(ctx, started)
	if i.config.Plan == nil {
		return nil
	}
	if err := i.place(ctx); err != nil {
		_ = i.Kill()
		<-i.Ended()
		if len(i.stderr) > 0 { // the reason, rather than that it is gone
			err = fmt.Errorf("%w: %s", err, control.Line(string(i.stderr)))
		}
		return fmt.Errorf("starting QEMU: %w", err)
	}
	return nil
}

// launch starts QEMU and returns where its end will be told. Its parent is a thread that
// does nothing else: the kernel sends Pdeathsig when that thread ends, not the process.
func (i *instance) launch() (<-chan error, error) {
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := i.cmd.Start()
		i.process.Store(i.cmd.Process)
		started <- err
		if err == nil {
			ended <- i.cmd.Wait()
		}
	}()
	return ended, <-started
}

func closeAll(files *[]*os.File) {
	for _, f := range *files {
		_ = f.Close()
	}
	*files = nil
}

// configure tells the guest its place in QEMU's network.
func (i *instance) configure(c *control.Configure) {
	_ = i.images.Close() // QEMU has read them
	if i.network {
		c.Address, c.Gateway, c.Resolvers = guestAddress, guestGateway, []string{guestResolver}
	}
}

// Kill ends QEMU.
func (i *instance) Kill() error {
	process := i.process.Load()
	if process == nil {
		return nil
	}
	err := process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	i.killed.Store(true)
	return err
}

// Wait waits for QEMU's end.
func (i *instance) Wait() (*control.Exit, error) {
	exit, err := i.Session.Wait()
	switch {
	case exit != nil || err != nil:
		return exit, err
	case i.killed.Load():
		return &control.Exit{Signal: int(unix.SIGKILL)}, nil
	case i.waitErr != nil:
		if len(i.stderr) > 0 {
			return nil, fmt.Errorf("QEMU failed: %w: %s", i.waitErr, control.Line(string(i.stderr)))
		}
		return nil, fmt.Errorf("QEMU failed: %w", i.waitErr)
	}
	return nil, errors.New("the kernel ended without an exit status of the app: it panicked or was reset")
}

// Close kills QEMU if it runs and frees the instance's files.
func (i *instance) Close() error {
	err := i.Kill()
	if err == nil && i.process.Load() != nil {
		<-i.Ended()
	}
	closeAll(&i.files)
	_ = i.images.Close()
	for _, f := range []*os.File{i.console, i.channel, i.qmp} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
