// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/qemu"
)

type runOptions struct {
	trust       cli.TrustOptions
	instance    cli.InstanceOptions
	accel       string
	cpus        int
	stopTimeout time.Duration
	quiet       bool
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
	o.instance.Flags(f)
	f.IntVar(&o.cpus, "cpus", 0, "CPUs (default: the least that the bundle claims)")
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
		timeout := time.After(o.stopTimeout)
		for {
			select {
			case s := <-signals:
				if s == os.Interrupt { // the second Ctrl-C; others come twice by themselves
					return
				}
			case <-timeout:
				a.Log.Warn("the app did not stop in time, ending the machine")
				return
			}
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
	if err := v.Close(); err != nil { // its memory is not needed any more
		return err
	}
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
	return cli.ExitStatus(exit)
}

func (o *runOptions) config() (loader.Config, error) {
	if o.cpus < 0 {
		return loader.Config{}, fmt.Errorf("--cpus %d: must be positive", o.cpus)
	}
	if o.accel != "" && o.accel != qemu.KVM && o.accel != qemu.TCG {
		return loader.Config{}, fmt.Errorf("--accel %q is neither kvm nor tcg", o.accel)
	}
	c, err := o.instance.Config()
	c.CPUs = o.cpus
	return c, err
}
