// SPDX-License-Identifier: Apache-2.0

// Appinit is PID 1 of an app kernel: it prepares the machine, runs the image's
// app as its one child, and powers the machine off when the app has ended.
//
// In: the sealed manifest.SpecPath of the initramfs, and what the host sends
// over the control channel (package control), if there is one. Out: the app's
// output on the console, its state and exit on the control channel. Refused:
// whatever the sealed spec does not declare. The app sees the image's tree as
// it is, plus what docker adds too: /proc, /sys, /dev, and /etc/hosts,
// hostname and resolv.conf.
package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader/control"
)

func main() {
	if os.Args[0] == namespaceInit {
		enterNamespace(os.Args[1:])
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "appinit: error: it runs as PID 1 of an app kernel only")
		os.Exit(2)
	}
	p := &pid1{
		children: newChildren(),
		signals:  make(chan unix.Signal, 16),
		resizes:  make(chan *control.Resize, 16),
		failed:   make(chan error, 1),
	}
	p.powerOff(p.run())
}

// pid1 is the running PID 1.
type pid1 struct {
	host     *channel // nil without a control channel
	children *children
	signals  chan unix.Signal // from the host, to be sent to the app
	resizes  chan *control.Resize
	failed   chan error // a panic in a goroutine
	isolated bool       // the app is PID 1 of a namespace
}

// run does everything from the first mount to the app's end.
func (p *pid1) run() control.Exit {
	var app <-chan unix.WaitStatus
	if err := guard(func() (err error) { app, err = p.boot(); return err }); err != nil {
		return failure(err)
	}
	defer p.children.stop()
	select {
	case status := <-app:
		return p.exit(status)
	case err := <-p.failed:
		return failure(err)
	}
}

// exit is how the app ended. The PID 1 of a namespace that calls reboot(2) is ended by these signals,
// which never end it otherwise: reboot_pid_ns() in kernel/pid_namespace.c.
func (p *pid1) exit(status unix.WaitStatus) control.Exit {
	switch {
	case p.isolated && status.Signaled() && (status.Signal() == unix.SIGINT || status.Signal() == unix.SIGHUP):
		return control.Exit{}
	case status.Signaled():
		return control.Exit{Signal: int(status.Signal())}
	}
	return control.Exit{Code: status.ExitStatus()}
}

// boot starts the app and returns where its status will come.
func (p *pid1) boot() (<-chan unix.WaitStatus, error) {
	caught := catchSignals()
	// Before mounts hide files that have extended attributes. Its failure waits
	// until there is somebody to tell.
	spec, specErr := takeSpec()
	if err := mountAll(); err != nil {
		return nil, err
	}
	if err := openConsole(); err != nil {
		return nil, err
	}
	config, err := p.connect()
	if err := errors.Join(err, specErr); err != nil {
		return nil, err
	}
	if config.Hostname == "" {
		config.Hostname = spec.Name
	}
	if err := identify(config); err != nil {
		return nil, err
	}
	// A kernel for an app without network may have no loopback interface.
	if err := linkUp("lo"); err != nil && spec.Network {
		return nil, err
	}
	if err := p.startNetwork(config, spec.Network); err != nil {
		return nil, err
	}
	stop, err := spec.App.Signal()
	if err != nil {
		return nil, err
	}
	if err := mountVolumes(spec.App.Volumes); err != nil {
		return nil, err
	}
	app, err := newApp(spec, config)
	if err != nil {
		return nil, err
	}
	if spec.App.ReadOnly {
		if err := sealRoot(); err != nil {
			return nil, err
		}
	}
	p.isolated = spec.App.PIDNamespace
	pid, status, err := app.start(p.children)
	if err != nil {
		return nil, err
	}
	p.host.send(&control.Message{Ready: &control.Ready{PID: pid, Uptime: uptime()}})
	p.spawn(func() { p.forward(pid, stop, caught) })
	if p.host != nil {
		if err := p.host.port.interruptible(); err != nil {
			return nil, err
		}
		p.spawn(p.receive)
		p.spawn(p.resize)
		p.spawn(p.host.heartbeat)
	}
	if spec.App.Health != nil {
		p.spawn(func() { p.watchHealth(app, spec.App.Health) })
	}
	return status, nil
}

// takeSpec reads the spec, applies the extended attributes and removes
// manifest.Dir: the app sees the image's tree alone, and the memory is free.
func takeSpec() (*manifest.Spec, error) {
	data, err := readFile(manifest.SpecPath)
	if err == unix.ENOENT {
		return nil, fmt.Errorf("the root file system is incomplete: %s, which comes last, is not there", manifest.SpecPath)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", manifest.SpecPath, err)
	}
	spec, err := manifest.DecodeSpec(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", manifest.SpecPath, err)
	}
	xattrs, err := readFile(manifest.XattrsPath)
	if err != nil && err != unix.ENOENT { // common: few images have any
		return nil, fmt.Errorf("reading %s: %w", manifest.XattrsPath, err)
	}
	if err := applyXattrs(xattrs); err != nil {
		return nil, err
	}
	for _, path := range []string{manifest.InitPath, manifest.SpecPath, manifest.XattrsPath} {
		if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
			return nil, fmt.Errorf("removing %s: %w", path, err)
		}
	}
	if err := unix.Rmdir(manifest.Dir); err != nil {
		return nil, fmt.Errorf("removing %s: %w", manifest.Dir, err)
	}
	return spec, nil
}

// spawn runs f for as long as the machine runs.
func (p *pid1) spawn(f func()) {
	go func() {
		if err := guard(func() error { f(); return nil }); err != nil {
			select {
			case p.failed <- err:
			default: // one is reported already
			}
		}
	}()
}

// guard runs f and makes an error of a panic, which would take PID 1, and with
// it the kernel, down unreported.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

// startError is an error with the exit code that docker gives it.
type startError struct {
	code int // 126: cannot be executed, 127: not found
	err  error
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// failure says that appinit could not run the app.
func failure(err error) control.Exit {
	code := 125
	if start, ok := errors.AsType[*startError](err); ok {
		code = start.code
	}
	return control.Exit{Code: code, Error: control.Line(err.Error())}
}

// note tells people about something that does not stop the app.
func note(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "appinit: "+format+"\n", args...)
}
