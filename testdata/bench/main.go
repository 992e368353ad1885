// SPDX-License-Identifier: Apache-2.0

// Command bench compares tenon and mortise with other programs that do the same work, on
// this machine, in one run. 'make bench' runs it.
//
// In: names of comparisons, separated by commas (none: all of them), and, in the
// environment, the programs and images that the Makefile makes. Out: a table on standard
// output, or JSON with --json; progress and whole error messages on standard error.
//
// Everything that has to be built is built first. Then each comparison measures the subject,
// which is ours, and its peers in turn, round by round. The result is the median and the
// spread of each, and the subject's ratio to each peer: below 1, the subject takes less.
// No ratio is judged.
//
// A comparison or a peer that fails is a line of the table. The others go on, and the exit
// status is 1. An unknown name is refused with exit status 2.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/testdata/e2e"
)

var comparisons = []comparison{
	{"boot", "from QEMU's start to PID 1 with everything mounted, redis's root file system", boot},
	{"seal", "build again when only the image has changed, and boot it; against a kernel with its initramfs inside", sealed},
	{"pid1", "from the exec of PID 1 to that of the app, without DHCP, under QEMU", pid1},
	{"verify", "verify a bundle of about 100 MiB, against the digest of its initramfs alone", verify},
	{"sign", "sign a kernel: three signatures against one", sign},
	{"rootfs", "turn nginx's image into a compressed initramfs", rootfs},
	{"memory", "peak memory of 'tenon rootfs', by the size of the image", memory},
	{"cokernel", "an app kernel beside a host, against one in QEMU, one emulated CPU each", cokernel},
}

func main() {
	for _, name := range []string{"TENON_BIN", "TENON_REDIS_IMAGE", "TENON_NGINX_IMAGE"} {
		if os.Getenv(name) == "" {
			fmt.Fprintf(os.Stderr, "bench: error: $%s is not set\nbench: hint: run 'make bench'\n", name)
			os.Exit(exitUsage)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := run(ctx, comparisons, os.Args[1:], os.Stdout, os.Stderr)
	e2e.Clean()
	os.Exit(code)
}

// Exit codes.
const (
	exitFailed = 1 // something could not be measured
	exitUsage  = 2
)

var errMeasured = errors.New("something could not be measured")

// run runs a command line and returns the exit status.
func run(ctx context.Context, all []comparison, args []string, stdout, stderr io.Writer) int {
	var asJSON bool
	cmd := &cobra.Command{
		Use:           "bench [NAME[,NAME]...]",
		Short:         "Compare tenon and mortise with their peers",
		Long:          "Compare tenon and mortise with their peers. The comparisons are:\n\n" + list(all),
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := choose(all, args)
			if err != nil {
				return err
			}
			rows := compare(cmd.Context(), chosen, stderr)
			write := writeTable
			if asJSON {
				write = writeJSON
			}
			if err := write(stdout, rows); err != nil {
				return fmt.Errorf("%w: %w", errMeasured, err)
			}
			if slices.ContainsFunc(rows, func(r row) bool { return r.Error != "" }) {
				return errMeasured
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array of objects instead of a table")
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "bench: error: %v\n", err)
	if errors.Is(err, errMeasured) {
		return exitFailed
	}
	return exitUsage
}

// choose returns the comparisons of these names, each once, in the table's order.
func choose(all []comparison, args []string) ([]comparison, error) {
	var names []string
	for _, arg := range args {
		names = append(names, strings.FieldsFunc(arg, func(r rune) bool { return r == ',' })...)
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(c comparison) bool { return c.name == name }) {
			return nil, fmt.Errorf("there is no comparison %q; the comparisons are:\n%s", name, list(all))
		}
	}
	if len(names) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(slices.Clone(all), func(c comparison) bool { return !slices.Contains(names, c.name) }), nil
}

// list has a line a comparison.
func list(all []comparison) string {
	var out strings.Builder
	for _, c := range all {
		fmt.Fprintf(&out, "  %-10s%s\n", c.name, c.what)
	}
	return strings.TrimSuffix(out.String(), "\n")
}
