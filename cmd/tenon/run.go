// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/qemu"
)

type runOptions struct {
	trust       cli.TrustFlags
	instance    cli.InstanceFlags
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
	if err := o.trust.Check(); err != nil {
		return err
	}
	config.Console = a.Stdout
	say := a.Log.Info
	if o.quiet {
		say = func(string, ...any) {}
	} else {
		config.Event = a.Tell
	}
	// From here on signals are for the app, once it is there.
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	signals := cli.CatchSignals()
	defer signals.Release()
	stoppable := make(chan func(), 1)
	go signals.React(func() {
		select {
		case stop := <-stoppable:
			stop()
			a.endAfter(ctx, o.stopTimeout, end)
		default:
			end()
		}
	}, end)

	v, err := a.Accept(ctx, ref, o.trust.Trust, false)
	if err != nil {
		return err
	}
	defer v.Close()
	if v.Identity() != "" {
		say("the bundle is signed", "by", v.Identity(), "digest", v.Digest())
	}
	number, err := v.Manifest().App.Signal()
	if err != nil {
		return err
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
		say("stopping the app", "signal", unix.SignalName(number))
		go func() {
			if err := instance.Signal(int(number)); err != nil {
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

// endAfter ends a machine whose app takes longer to stop.
func (a *app) endAfter(ctx context.Context, limit time.Duration, end func()) {
	timer := time.AfterFunc(limit, func() {
		a.Log.Warn("the app did not stop in time, ending the machine")
		end()
	})
	context.AfterFunc(ctx, func() { timer.Stop() })
}

func (o *runOptions) config() (loader.Config, error) {
	if o.cpus < 0 {
		return loader.Config{}, fmt.Errorf("--cpus %d: must be positive", o.cpus)
	}
	if o.accel != "" && o.accel != qemu.KVM && o.accel != qemu.TCG {
		return loader.Config{}, fmt.Errorf("--accel %q is neither kvm nor tcg", o.accel)
	}
	settings, err := o.instance.Settings()
	settings.CPUs = o.cpus
	return loader.Config{Settings: settings}, err
}
