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
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "appinit: error: it runs as PID 1 of an app kernel only")
		os.Exit(2)
	}
	p := &pid1{children: newChildren(), failed: make(chan error, 1), signals: make(chan unix.Signal, 16)}
	p.powerOff(p.run())
}

// pid1 is the running PID 1.
type pid1 struct {
	host     *channel // nil without a control channel
	children *children
	signals  chan unix.Signal // from the host, to be sent to the app
	failed   chan error       // a panic in a goroutine
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
		if status.Signaled() {
			return control.Exit{Signal: int(status.Signal())}
		}
		return control.Exit{Code: status.ExitStatus()}
	case err := <-p.failed:
		return failure(err)
	}
}

// boot starts the app and returns where its status will come.
func (p *pid1) boot() (<-chan unix.WaitStatus, error) {
	caught := catchSignals()
	// These need no mount: they go on meanwhile.
	var spec *manifest.Spec
	specRead := begin(func() (err error) { spec, err = takeSpec(); return err })
	loopback := begin(func() error { return linkUp("lo") })
	if err := mountAll(); err != nil {
		return nil, err
	}
	if err := openConsole(); err != nil {
		return nil, err
	}
	config, err := p.connect()
	if err != nil {
		return nil, err
	}
	if err := specRead(); err != nil {
		return nil, err
	}
	if config.Hostname == "" {
		config.Hostname = spec.Name
	}
	if err := identify(config); err != nil {
		return nil, err
	}
	// A kernel for an app without network may have no loopback interface.
	if err := loopback(); err != nil && spec.Network {
		return nil, err
	}
	if err := p.startNetwork(config, spec.Network); err != nil {
		return nil, err
	}
	stop, err := spec.App.Signal()
	if err != nil {
		return nil, err
	}
	app, err := newApp(spec, config)
	if err != nil {
		return nil, err
	}
	pid, status, err := app.start(p.children)
	if err != nil {
		return nil, err
	}
	p.host.send(&control.Message{Ready: &control.Ready{PID: pid, Uptime: uptime()}})
	p.spawn(func() { p.forward(pid, stop, caught) })
	if spec.App.Health != nil {
		p.spawn(func() { p.watchHealth(app, spec.App.Health) })
	}
	return status, nil
}

// takeSpec reads the spec and removes manifest.Dir: the app sees the image's
// tree alone, and the memory is free.
func takeSpec() (*manifest.Spec, error) {
	data, err := os.ReadFile(manifest.SpecPath)
	if err != nil {
		return nil, err
	}
	spec, err := manifest.DecodeSpec(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", manifest.SpecPath, err)
	}
	return spec, os.RemoveAll(manifest.Dir)
}

// begin runs f beside the caller; what it returns waits for the result.
func begin(f func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- guard(f) }()
	return func() error { return <-done }
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
