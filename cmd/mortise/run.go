// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/registry"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/engine"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/signer/trust"
)

// runOptions say how this process takes part in an instance.
type runOptions struct {
	detach  bool
	create  bool // it was created for this
	remove  bool // when it has ended
	replace bool // one of that name
	quiet   bool
	grace   time.Duration
}

func (o *runOptions) flags(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&o.grace, "stop-timeout", 10*time.Second, "how long the app may take to stop, when this process is asked to, before the machine is ended")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "say nothing but warnings and errors")
}

func newRunCmd(a *app) *cobra.Command {
	var request requestOptions
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run BUNDLE",
		Short: "Create an instance of a bundle, start it and wait for its end",
		Long: `Create an instance of a bundle, start it and wait for its end.

The console is on standard output. Ctrl-C sends the app's stop signal, a second
one ends the machine. The exit status is the app's own, 128+n when signal n
ended it, and 125 when mortise or the machine failed.

With --detach, it runs in the background: its name is printed when its kernel was
started, and the exit status is that of 'start', but 125 for a command line that is none.`,
		Example: `  mortise run --policy policy.toml -p 6379:6379 redis.tenon
  mortise run --detach --name cache --cpus 8-11 --memory 4G registry.example/team/redis:1.4`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := request.request(a)
			if err != nil {
				return cli.Exit(cli.ExitRun, err)
			}
			o.create = true
			return a.supervise(cmd.Context(), o, func(ctx context.Context) (*instance.Record, *loader.Verified, error) {
				return a.create(ctx, args[0], request.name, r, o.replace)
			})
		},
	}
	request.flags(cmd)
	o.flags(cmd)
	cmd.Flags().BoolVarP(&o.detach, "detach", "d", false, "run it in the background")
	cmd.Flags().BoolVar(&o.remove, "rm", false, "remove the instance when it has ended")
	cmd.Flags().BoolVar(&o.replace, "replace", false, "end and remove an instance of that name before")
	return cmd
}

func newCreateCmd(a *app) *cobra.Command {
	var request requestOptions
	cmd := &cobra.Command{
		Use:   "create BUNDLE",
		Short: "Create an instance of a bundle, to be started later",
		Long: `Verify a bundle and record an instance of it. Print the instance's name. It holds no
CPUs and no memory until it is started; what this host could never give is refused.`,
		Example: `  mortise create --policy policy.toml --name cache redis.tenon && mortise start cache`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := request.request(a)
			if err != nil {
				return cli.Usage(cmd, err)
			}
			record, v, err := a.create(cmd.Context(), args[0], request.name, r, false)
			if err != nil {
				return err
			}
			defer v.Close()
			_, err = fmt.Fprintln(a.Stdout, record.Name)
			return err
		},
	}
	request.flags(cmd)
	return cmd
}

func newStartCmd(a *app) *cobra.Command {
	var o runOptions
	var attach bool
	cmd := &cobra.Command{
		Use:   "start INSTANCE",
		Short: "Start an instance that was created, or has ended, or attend to one that runs",
		Long: `Verify the instance's bundle again, take what it was created for, and start it in the
background. End with status 4 when others hold what it needs.

An instance that has outlived its supervisor is not started again: it gets another one.

With --attach, it runs in this process, as 'run' does.`,
		Example: `  mortise start cache`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.detach = !attach
			return a.supervise(cmd.Context(), o, func(ctx context.Context) (*instance.Record, *loader.Verified, error) {
				if err := a.here().Recover(ctx, args[0]); err != nil {
					return nil, nil, err
				}
				r, err := a.here().Store().Get(args[0])
				if err == nil && r.Unattended() {
					return r, nil, nil
				}
				if err == nil {
					err = r.CheckStartable()
				}
				if err != nil {
					return nil, nil, err
				}
				client, err := a.Registries(r.Request.Registries)
				if err != nil {
					return nil, nil, err
				}
				v, err := a.accept(registry.NewContext(ctx, client), r.Bundle.Reference, r.Request.Trust, false)
				return r, v, err
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "run it in the foreground")
	return cmd
}

// create verifies a bundle and records an instance of it.
func (a *app) create(ctx context.Context, ref, name string, r instance.Request, replace bool) (*instance.Record, *loader.Verified, error) {
	ref, err := bundle.Absolute(ref)
	if err == nil && name != "" {
		err = instance.CheckName(name)
	}
	if err != nil {
		return nil, nil, err
	}
	r.Registries = registry.FromContext(ctx).Settings()
	e := a.here()
	said := r.Trust.ExpectName != ""
	if replace && !said {
		if r.Trust.ExpectName, err = bundleOf(e, name); err != nil {
			return nil, nil, err
		}
	}
	v, err := a.accept(ctx, ref, r.Trust, false)
	if err != nil {
		return nil, nil, err
	}
	m := v.Manifest()
	if replace && !said && name == "" { // now it is known which one is replaced
		var before string
		if before, err = bundleOf(e, m.Name); err == nil && before != "" && before != m.Name {
			err = fmt.Errorf("%w: %w: its name is %q, and instance %q is of %q", loader.ErrRefused, trust.ErrName, m.Name, m.Name, before)
		}
		if err != nil {
			return nil, nil, errors.Join(err, v.Close())
		}
	}
	name = cmp.Or(name, m.Name)
	if replace { // nothing for something that cannot be
		if err = e.CheckPossible(name, m, &r); err == nil {
			err = e.Remove(ctx, name, true)
		}
		if errors.Is(err, instance.ErrNotFound) {
			err = nil
		}
	}
	var record *instance.Record
	if err == nil {
		record, err = e.Create(ctx, name, ref, v, r)
	}
	if err != nil {
		return nil, nil, errors.Join(err, v.Close())
	}
	return record, v, nil
}

// bundleOf is the name of the bundle of an instance. It is empty where there is no such
// instance, or none whose record can be read.
func bundleOf(e *engine.Engine, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	r, err := e.Store().Get(name)
	if errors.Is(err, instance.ErrNotFound) || errors.Is(err, instance.ErrRecord) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return r.Bundle.Name, nil
}

// supervise runs the instance that prepare names, in this process or in the background.
// One without a bundle runs already.
func (a *app) supervise(ctx context.Context, o runOptions, prepare func(context.Context) (*instance.Record, *loader.Verified, error)) error {
	started := startedPipe()
	if o.detach && started == nil {
		return a.spawn(ctx)
	}
	// From here on signals are for the app, once it is there.
	signals := cli.CatchSignals()
	defer signals.Release()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // nobody who looks on ends an instance
	record, v, err := prepare(ctx)
	if err != nil {
		return a.failed(o, err)
	}
	e, name := a.here(), record.Name
	look := func(ctx context.Context, o engine.Options) (*instance.Record, error) { return e.Attend(ctx, name, o) }
	if v != nil {
		defer v.Close()
		look = func(ctx context.Context, o engine.Options) (*instance.Record, error) { return e.Run(ctx, name, v, o) }
	}
	options := engine.Options{Grace: o.grace}
	begun := a.during("starting " + name)
	defer begun()
	if !o.quiet && !o.detach { // in the background, nobody listens
		options.Event = a.Tell
	}
	if o.detach {
		options.Started = func() error { begun(); return a.leave(started, name) }
	} else {
		options.Console, options.Started = a.Stdout, func() error { begun(); return notifyReady() }
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go signals.React(stop, func() { _ = e.Kill(context.Background(), name) })
	r, err := look(ctx, options)
	if o.remove || o.create && (r == nil || r.Started.IsZero()) { // it never ran: nobody asks for it again
		err = errors.Join(err, e.RemoveOwn(context.WithoutCancel(ctx), record))
	}
	switch {
	case err != nil:
		return a.failed(o, err)
	case r.State == instance.Failed:
		return a.failed(o, fmt.Errorf("instance %q: %s", name, r.Reason))
	case o.detach:
		return nil
	}
	return cli.ExitStatus(r.Exit)
}

// notifyReady tells systemd that the instance was started, if systemd waits for that: see
// sd_notify(3).
func notifyReady() error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", address)
	if err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1"))
	return err
}

// failed gives the failures of what runs in the background codes of their own: nothing
// is reported there but how it started.
func (a *app) failed(o runOptions, err error) error {
	if o.detach {
		return cli.Exit(cli.Code(err), err)
	}
	return cli.Exit(cli.ExitRun, err)
}
