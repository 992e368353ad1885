// SPDX-License-Identifier: Apache-2.0

// Command tenon turns an OCI image into a signed bundle of a minimal initramfs
// and a kernel tailored to it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/loader"
)

// Exit codes.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
	exitDiffer  = 1   // of diff, as diff(1)
	exitTrouble = 2   // of diff: a failure of ours
	exitRun     = 125 // of run: a failure of ours, as docker run
)

// app is what all commands share.
type app struct {
	stdout, stderr io.Writer
	log            *slog.Logger
}

// exitError ends the program with a status; err may be nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }
func (e *exitError) Unwrap() error { return e.err }

func main() {
	a := &app{stdout: os.Stdout, stderr: os.Stderr}
	a.log = slog.New(&handler{w: a.stderr})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run runs one command line and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.newRootCmd()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.status(cmd.Name(), err)
}

// status reports how a verb ended and returns the exit status.
func (a *app) status(verb string, err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		code, err = exit.code, exit.err
	case verb == "run":
		code = exitRun
	case verb == "diff":
		code = exitTrouble
	case errors.Is(err, loader.ErrRefused):
		code = exitRefused
	}
	if err != nil {
		a.report(err)
	}
	return code
}

// report prints an error as one line, and the hint that goes with it.
func (a *app) report(err error) {
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	line := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
	fmt.Fprintf(a.stderr, "tenon: error: %s\n", escape(line))
	if h := hint(err); h != "" {
		fmt.Fprintf(a.stderr, "tenon: hint: %s\n", h)
	}
}

// escape makes a text of printable characters alone: errors name what strangers
// named.
func escape(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

func (a *app) newRootCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "tenon",
		Short:         "Turn an OCI image into a minimal initramfs and a kernel tailored to it",
		Version:       version(),
		Args:          cobra.NoArgs,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return &exitError{exitUsage, errors.New("no command given")}
		},
	}
	cmd.SetOut(a.stdout)
	cmd.SetErr(a.stderr)
	cmd.SetFlagErrorFunc(usage)
	cmd.AddCommand(newBuildCmd(a), newRootfsCmd(a), newSignCmd(a), newVerifyCmd(a), newRunCmd(a), newInspectCmd(a), newDiffCmd(a),
		newPushCmd(a), newPullCmd(a), newExportCmd(a), newKeyCmd(a), newRecipeCmd(a))
	for _, c := range append(cmd.Commands(), cmd) {
		c.Args = usageArgs(c.Args)
	}
	return cmd
}

func usage(cmd *cobra.Command, err error) error {
	code := exitUsage
	if cmd.Name() == "run" {
		code = exitRun // 2 is what an app may end with
	}
	return &exitError{code, fmt.Errorf("%w (see '%s --help')", err, cmd.CommandPath())}
}

func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		err := check(cmd, args)
		for _, next := range []func() error{cmd.ValidateRequiredFlags, cmd.ValidateFlagGroups} {
			if err == nil {
				err = next()
			}
		}
		if err != nil {
			return usage(cmd, err)
		}
		return nil
	}
}

// version is the module's version, as the Go toolchain recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
