// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tenon-build/tenon/loader/instance"
)

func newLogsCmd(a *app) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs INSTANCE",
		Short: "Print what an instance has printed",
		Long: `Print what an instance has printed since it was started the last time, as far as it is
kept: the last MiB at least.`,
		Example: `  mortise logs --follow cache`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if follow {
				c, err := a.here().Attach(cmd.Context(), args[0], true, false)
				if err == nil {
					return a.copyConsole(cmd.Context(), c)
				}
				if !errors.As(err, new(*instance.TransitionError)) { // it has ended, or was never started
					return err
				}
			}
			return a.here().Logs(args[0], a.Stdout)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the instance ends")
	return cmd
}

func newConsoleCmd(a *app) *cobra.Command {
	var noStdin bool
	cmd := &cobra.Command{
		Use:   "console INSTANCE",
		Short: "Attach to the console of a running instance",
		Long: `Attach to the console of a running instance: what it prints from now on, and what is
typed here. On a terminal, Ctrl-P Ctrl-Q detaches; the instance runs on.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			c, err := a.here().Attach(ctx, args[0], false, !noStdin)
			if err != nil {
				return err
			}
			signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // the terminal has to be restored
			if !noStdin {
				restore, err := rawTerminal(os.Stdin)
				if err != nil {
					return errors.Join(err, c.Close())
				}
				defer restore()
				go typeOn(c, os.Stdin, cancel)
			}
			return a.copyConsole(ctx, c)
		},
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "only look on")
	return cmd
}

// copyConsole prints what an instance prints, until it ends or ctx does.
func (a *app) copyConsole(ctx context.Context, c io.ReadWriteCloser) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	_, err := io.Copy(a.Stdout, c)
	if ctx.Err() != nil {
		return nil // detached
	}
	return errors.Join(err, c.Close())
}

// detachKeys are docker's: Ctrl-P Ctrl-Q.
var detachKeys = []byte{16, 17}

// typeOn passes keys on until they are the detach keys, which are two reads or one.
// A pipe that ends detaches nobody.
func typeOn(console io.Writer, keys io.Reader, detach func()) {
	terminal := term.IsTerminal(int(os.Stdin.Fd()))
	buf := make([]byte, 1024)
	var held []byte // a first detach key
	for {
		n, err := keys.Read(buf)
		in := slices.Concat(held, buf[:n])
		held = nil
		if terminal {
			if i := bytes.Index(in, detachKeys); i >= 0 {
				_, _ = console.Write(in[:i])
				detach()
				return
			}
			if last := len(in) - 1; last >= 0 && in[last] == detachKeys[0] {
				in, held = in[:last], detachKeys[:1:1]
			}
		}
		if _, failed := console.Write(in); failed != nil || err != nil {
			return
		}
	}
}

// rawTerminal lets each key through as it is. What is no terminal stays what it is.
func rawTerminal(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return func() {}, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	return func() { _ = term.Restore(fd, before) }, nil
}
