// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/cmd/internal/cli"
)

func newStopCmd(a *app) *cobra.Command {
	var signal string
	var grace time.Duration
	var force bool
	cmd := &cobra.Command{
		Use:   "stop INSTANCE...",
		Short: "Ask instances to stop, and wait until what they held is given back",
		Long: `Send the app its stop signal, or another one; end the machine when that takes too
long; wait until CPUs and memory are the host's again.

With --force, end the machine at once, and its supervisor where that does not answer.`,
		Example: `  mortise stop cache
  mortise stop --signal INT --grace 1m cache web`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			number := 0
			if signal != "" {
				var err error
				if number, err = parseSignal(signal); err != nil {
					return cli.Usage(cmd, err)
				}
			}
			if grace < 0 {
				return cli.Usage(cmd, fmt.Errorf("--grace %v: must not be negative", grace))
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				defer a.during("waiting until " + name + " has stopped")()
				if force {
					return a.here().Kill(ctx, name)
				}
				return a.here().Stop(ctx, name, number, grace)
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&signal, "signal", "s", "", "the signal, for example INT (default: the bundle's stop signal)")
	f.DurationVarP(&grace, "grace", "t", 10*time.Second, "how long that may take before the machine is ended")
	f.BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.MarkFlagsMutuallyExclusive("force", "signal")
	cmd.MarkFlagsMutuallyExclusive("force", "grace")
	return cmd
}

func newKillCmd(a *app) *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use:   "kill INSTANCE...",
		Short: "End instances at once, or send their apps a signal",
		Long: `End the machines and wait until what they held is given back. With --signal, send the
apps that signal instead, and wait for nothing.`,
		Example: `  mortise kill cache
  mortise kill --signal HUP web`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := parseSignal(signal)
			if err != nil {
				return cli.Usage(cmd, err)
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				defer a.during("waiting until " + name + " has ended")()
				if number == int(unix.SIGKILL) {
					return a.here().Kill(ctx, name)
				}
				return a.here().Signal(ctx, name, number)
			})
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "KILL", "the signal")
	return cmd
}

func newRmCmd(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm INSTANCE...",
		Short:   "Remove instances that do not run, with their logs",
		Example: `  mortise rm cache`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				defer a.during("removing " + name)()
				return a.here().Remove(ctx, name, force)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "end them first, also those whose records cannot be read, and, by ID, those that have none")
	return cmd
}

func newResizeCmd(a *app) *cobra.Command {
	var cpus, memory string
	cmd := &cobra.Command{
		Use:     "resize INSTANCE",
		Short:   "Give a running instance more or fewer CPUs",
		Example: `  mortise resize --cpus 4 cache`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if memory != "" {
				return fmt.Errorf("instance %q: its memory cannot change while it runs: all of it was taken, and bound to its node, when it started", args[0])
			}
			n, list, err := parseCPUs(cpus)
			if err == nil && (n == 0 || len(list) > 0) {
				err = fmt.Errorf("--cpus %q is not a number of CPUs: which ones they are, mortise decides", cpus)
			}
			if err != nil {
				return cli.Usage(cmd, err)
			}
			defer a.during("waiting until " + args[0] + " has its CPUs")()
			return a.here().Resize(cmd.Context(), args[0], n)
		},
	}
	cmd.Flags().StringVar(&cpus, "cpus", "", "how many CPUs")
	cmd.Flags().StringVar(&memory, "memory", "", "refused: memory is taken when the instance starts")
	cmd.MarkFlagsOneRequired("cpus", "memory")
	return cmd
}

// each does the same with several instances. One that fails keeps it from none of the
// others: all errors but the last are reported here.
func (a *app) each(ctx context.Context, names []string, do func(context.Context, string) error) error {
	return a.eachOf(names, func(name string) error {
		if err := do(ctx, name); err != nil {
			return err
		}
		fmt.Fprintln(a.Stdout, name)
		return nil
	})
}

func (a *app) eachOf(names []string, do func(string) error) error {
	var last error
	for _, name := range names {
		err := do(name)
		if err == nil {
			continue
		}
		if last != nil {
			a.Report(last)
		}
		last = err
	}
	return last
}

// parseSignal takes TERM, SIGTERM and 15, as bundles do.
func parseSignal(text string) (int, error) {
	s, err := (&manifest.App{StopSignal: text}).Signal()
	if err != nil {
		return 0, fmt.Errorf("--signal %q is not a signal", text)
	}
	return int(s), nil
}
