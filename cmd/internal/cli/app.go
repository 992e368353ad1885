// SPDX-License-Identifier: Apache-2.0

// Package cli is what the commands tenon and mortise have in common: how they
// start and end, how they speak to people and to programs, whom they trust.
package cli

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

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
)

// Exit codes.
const (
	ExitFailed  = 1
	ExitUsage   = 2
	ExitRefused = 3
	ExitTaken   = 4   // what is asked for, others hold
	ExitRun     = 125 // of run: a failure of ours, as docker run
)

// App is what all verbs of a command share.
type App struct {
	Name           string
	Stdout, Stderr io.Writer
	Log            *slog.Logger
	Hint           func(error) string // the next step after an error; may be empty
	Failed         map[string]int     // exit codes of verbs whose failures have their own
	Working        func() func()      // shows that long work goes on, until what it returns is called
	Policy, State  string             // of TrustFlags, where the command line says nothing of trust
	Guarded        bool               // files that say whom to trust are refused where others can change them
	RegistryConfig string             // configuration of registries, where the command line names none; may be empty
}

// New returns the App of a command, without hints.
func New(name string, stdout, stderr io.Writer) *App {
	return &App{
		Name: name, Stdout: stdout, Stderr: stderr, Log: slog.New(&Handler{Name: name, W: stderr}),
		Hint:    func(error) string { return "" },
		Working: func() func() { return func() {} },
	}
}

// exitError ends the program with a status; err may be nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }
func (e *exitError) Unwrap() error { return e.err }

// Exit is an error that ends the program with a status. err may be nil.
func Exit(code int, err error) error { return &exitError{code, err} }

// Main runs the command line of this process, and ends it.
func (a *App) Main(root *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := a.Run(ctx, root, os.Args[1:])
	stop()
	os.Exit(code)
}

// Run runs one command line and returns the exit status.
func (a *App) Run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.Status(cmd.Name(), err)
}

// Status reports how a verb ended and returns the exit status.
func (a *App) Status(verb string, err error) int {
	if err == nil {
		return 0
	}
	code, own := a.Failed[verb]
	if !own {
		code = Code(err)
	}
	if exit := new(exitError); errors.As(err, &exit) {
		code, err = exit.code, exit.err
	}
	if err != nil {
		a.Report(err)
	}
	return code
}

// Code is the exit code of an error, for verbs that have none of their own.
func Code(err error) int {
	switch {
	case errors.Is(err, loader.ErrRefused):
		return ExitRefused
	case errors.Is(err, alloc.ErrTaken):
		return ExitTaken
	}
	return ExitFailed
}

// Report prints an error as one line, and the hint that goes with it.
func (a *App) Report(err error) {
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	line := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
	fmt.Fprintf(a.Stderr, "%s: error: %s\n", a.Name, Escape(line))
	if h := a.Hint(err); h != "" {
		fmt.Fprintf(a.Stderr, "%s: hint: %s\n", a.Name, h)
	}
}

// Root makes the command that has the verbs.
func (a *App) Root(short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:           a.Name,
		Short:         short,
		Version:       Version(),
		Args:          cobra.NoArgs,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return Exit(ExitUsage, errors.New("no command given"))
		},
	}
	cmd.SetOut(a.Stdout)
	cmd.SetErr(a.Stderr)
	cmd.SetFlagErrorFunc(Usage)
	cmd.AddCommand(verbs...)
	for _, c := range append(cmd.Commands(), cmd) {
		c.Args = UsageArgs(c.Args)
	}
	return cmd
}

// Usage makes an error of a command line that is none.
func Usage(cmd *cobra.Command, err error) error {
	code := ExitUsage
	if cmd.Name() == "run" {
		code = ExitRun // 2 is what an app may end with
	}
	return Exit(code, fmt.Errorf("%w (see '%s --help')", err, cmd.CommandPath()))
}

// UsageArgs makes what check, and cobra's own checks, find an error of usage.
func UsageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
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
			return Usage(cmd, err)
		}
		return nil
	}
}

// CheckFormat checks the value of --format.
func CheckFormat(format string) error {
	if format != "text" && format != "json" {
		return Exit(ExitUsage, fmt.Errorf("--format %q is neither text nor json", format))
	}
	return nil
}

// Version is the module's version, as the Go toolchain recorded it.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
