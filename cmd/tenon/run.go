// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/qemu"
)

type runOptions struct {
	trust         cli.TrustOptions
	publish, env  []string
	memory, accel string
	hostname      string
	cpus          int
	stopTimeout   time.Duration
	quiet         bool
}

func newRunCmd(a *app) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run BUNDLE",
		Short: "Boot a bundle under QEMU",
		Long: `Boot a bundle under QEMU and wait for its end.

The console is on standard output. Ctrl-C sends the app's stop signal, a second
one ends the machine. The exit status is the app's own, 128+n when signal n
ended it, and 125 when tenon or the machine failed.`,
		Example: `  tenon run --cert keys/ca.crt -p 6379:6379 redis.tenon`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.runBundle(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	o.trust.Flags(f)
	f.BoolVar(&o.trust.AllowUnsigned, "allow-unsigned", false, "run a bundle that nobody signed: anyone can have made it")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "forward a port: [ADDRESS:]HOST:GUEST[/udp] (the default address is 127.0.0.1)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set a parameter of the bundle: NAME=VALUE")
	f.StringVarP(&o.memory, "memory", "m", "", "memory, for example 512M (default: the least that the bundle claims)")
	f.IntVar(&o.cpus, "cpus", 0, "CPUs (default: the least that the bundle claims)")
	f.StringVar(&o.hostname, "hostname", "", "host name (default: the bundle's name)")
	f.StringVar(&o.accel, "accel", "", "kvm or tcg (default: kvm if a test guest starts under it)")
	f.DurationVar(&o.stopTimeout, "stop-timeout", 10*time.Second, "how long the app may take to stop before the machine is ended")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "say nothing but errors")
	o.trust.Exclusive(cmd)
	return cmd
}

func (a *app) runBundle(ctx context.Context, ref string, o runOptions) error {
	config, err := o.config()
	if err != nil {
		return cli.Exit(cli.ExitRun, err)
	}
	config.Console = a.Stdout
	say := a.Log.Info
	if o.quiet {
		say = func(string, ...any) {}
	}
	policy, err := o.trust.Load(false)
	if err != nil {
		return err
	}
	if policy.AllowUnsigned {
		a.Log.Warn("running without a signature: nothing proves who made this bundle", "bundle", ref)
	}
	// From here on signals are for the app, once it is there.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stoppable := make(chan func(), 1)
	go func() {
		defer cancel()
		<-signals
		select {
		case stop := <-stoppable:
			stop()
		default:
			return
		}
		select {
		case <-signals:
		case <-time.After(o.stopTimeout):
			a.Log.Warn("the app did not stop in time, ending the machine")
		}
	}()

	v, err := loader.Verify(ctx, ref, policy, func(c loader.Check) {
		if c.Result == loader.CheckWarning {
			a.Log.Warn(c.Object, "why", c.Detail)
		}
	})
	if err != nil {
		return err
	}
	defer v.Close()
	if v.Identity() != "" {
		say("the bundle is signed", "by", v.Identity(), "digest", v.Digest())
	}
	if !v.Manifest().Initramfs.Sealed {
		a.Log.Warn("detached: no signature over the kernel covers the initramfs and the command line", "bundle", ref)
	}
	stop, err := v.Manifest().App.Signal()
	if err != nil {
		return err
	}
	config.Event = func(e loader.Event) {
		switch {
		case e.Ready != nil:
			say("the app runs", "since start", e.Since.Round(time.Millisecond))
		case e.Health != nil && e.Health.Output != "":
			say("the app is "+e.Health.Status, "why", e.Health.Output)
		case e.Health != nil:
			say("the app is "+e.Health.Status, "since start", e.Since.Round(time.Millisecond))
		}
	}
	backend := &qemu.Backend{Accel: o.accel, Log: a.Log}
	instance, err := backend.Load(ctx, v, config)
	if err != nil {
		return err
	}
	defer instance.Close()
	if err := instance.Start(ctx); err != nil {
		return err
	}
	stoppable <- func() {
		say("stopping the app", "signal", unix.SignalName(stop))
		go func() {
			if err := instance.Signal(int(stop)); err != nil {
				a.Log.Warn("the app could not be asked to stop", "why", err)
			}
		}()
	}
	exit, err := instance.Wait()
	if err != nil {
		return err
	}
	return exitStatus(exit)
}

// exitStatus maps how the app ended as docker does.
func exitStatus(exit *control.Exit) error {
	switch {
	case exit.Error != "":
		return cli.Exit(exit.Code, fmt.Errorf("starting the app: %s", exit.Error))
	case exit.Signal != 0:
		return cli.Exit(128+exit.Signal, nil)
	case exit.Code != 0:
		return cli.Exit(exit.Code, nil)
	}
	return nil
}

func (o *runOptions) config() (loader.Config, error) {
	c := loader.Config{CPUs: o.cpus, Hostname: o.hostname, Env: map[string]string{}}
	if o.cpus < 0 {
		return c, fmt.Errorf("--cpus %d: must be positive", o.cpus)
	}
	if o.accel != "" && o.accel != qemu.KVM && o.accel != qemu.TCG {
		return c, fmt.Errorf("--accel %q is neither kvm nor tcg", o.accel)
	}
	if o.memory != "" {
		n, err := units.RAMInBytes(o.memory)
		if err != nil || n < 1<<20 {
			return c, fmt.Errorf("--memory %q is not a size such as 512M", o.memory)
		}
		c.Memory = n
	}
	for _, e := range o.env {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			return c, fmt.Errorf("--env %q is not NAME=VALUE", e)
		}
		c.Env[name] = value
	}
	for _, p := range o.publish {
		f, err := parseForward(p)
		if err != nil {
			return c, fmt.Errorf("--publish %q: %w", p, err)
		}
		c.Forwards = append(c.Forwards, f)
	}
	return c, nil
}

func parseForward(s string) (loader.Forward, error) {
	f := loader.Forward{Protocol: "tcp", HostAddress: "127.0.0.1"}
	spec, protocol, ok := strings.Cut(s, "/")
	if ok {
		f.Protocol = protocol
	}
	if f.Protocol != "tcp" && f.Protocol != "udp" {
		return f, fmt.Errorf("protocol %q is neither tcp nor udp", f.Protocol)
	}
	parts := strings.Split(spec, ":")
	if len(parts) == 3 {
		f.HostAddress, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return f, errors.New("want [ADDRESS:]HOST:GUEST[/udp]")
	}
	if ip := net.ParseIP(f.HostAddress); ip == nil || ip.To4() == nil {
		return f, fmt.Errorf("%q is not an IPv4 address", f.HostAddress)
	}
	for i, into := range []*int{&f.HostPort, &f.GuestPort} {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil || n == 0 {
			return f, fmt.Errorf("%q is not a port", parts[i])
		}
		*into = int(n)
	}
	return f, nil
}
