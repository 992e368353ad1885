// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader/instance"
)

func newPsCmd(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the instances, what they hold and how they are",
		Long: `List the instances, what they hold and how they are. In JSON, a list of records, as
'inspect' prints them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.CheckFormat(format); err != nil {
				return err
			}
			if err := a.here().Recover(cmd.Context(), ""); err != nil {
				return err
			}
			records, unreadable := a.here().Store().List()
			if err := a.printRecords(records, format, time.Now()); err != nil {
				return err
			}
			return unreadable
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// masked stands for the values of parameters: they may be secrets. They are in the records,
// which root alone can read, as the next start needs them.
const masked = "***"

// mask returns records without the values of parameters.
func mask(records []*instance.Record) []*instance.Record {
	out := make([]*instance.Record, len(records))
	for i, r := range records {
		shown := *r
		shown.Request.Env = maps.Clone(r.Request.Env)
		for name := range shown.Request.Env {
			shown.Request.Env[name] = masked
		}
		out[i] = &shown
	}
	return out
}

func (a *app) printRecords(records []*instance.Record, format string, now time.Time) error {
	if format == "json" {
		return a.PrintJSON(mask(records))
	}
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tCPUS\tMEMORY\tHEALTH\tBUNDLE\tDETAIL")
	for _, r := range records {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, state(r), orNone(r.Held.CPUs), memory(&r.Held), health(r), bundleName(r), cli.Printable(detail(r, now)))
	}
	return w.Flush()
}

func state(r *instance.Record) string {
	if r.Unattended() {
		return "running (unattended)"
	}
	return string(r.State)
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func memory(h *instance.Held) string {
	var sum int64
	for _, m := range h.Memory {
		sum += m.Bytes
	}
	if sum == 0 {
		return "-"
	}
	return units.BytesSize(float64(sum))
}

func health(r *instance.Record) string {
	if r.Health == nil || r.State != instance.Running {
		return "-"
	}
	return r.Health.Status
}

func bundleName(r *instance.Record) string {
	if r.Bundle.Version == "" {
		return r.Bundle.Name
	}
	return r.Bundle.Name + " " + r.Bundle.Version
}

// detail says since when an instance is what it is, or how it ended.
func detail(r *instance.Record, now time.Time) string {
	ago := func(t time.Time) string { return strings.ToLower(units.HumanDuration(now.Sub(t))) + " ago" }
	switch {
	case r.State == instance.Running:
		return "started " + ago(r.Started)
	case r.State == instance.Failed:
		return r.Reason
	case r.Exit != nil && r.Exit.Error != "":
		return r.Exit.Error
	case r.Exit != nil && r.Exit.Signal != 0:
		return fmt.Sprintf("ended by signal %d, %s", r.Exit.Signal, ago(r.Ended))
	case r.Exit != nil:
		return fmt.Sprintf("exit status %d, %s", r.Exit.Code, ago(r.Ended))
	}
	return "created " + ago(r.Created)
}

func newInspectCmd(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect INSTANCE...",
		Short: "Show all that is known of instances",
		Long: `Show all that is known of instances: a list of their records in JSON, whose field names
do not change. Values of parameters are masked. With --format text, as 'ps' does.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.CheckFormat(format); err != nil {
				return err
			}
			if err := a.here().Recover(cmd.Context(), ""); err != nil {
				return err
			}
			var records []*instance.Record
			missing := a.eachOf(args, func(name string) error {
				r, err := a.here().Store().Get(name)
				if err == nil {
					records = append(records, r)
				}
				return err
			})
			if len(records) > 0 {
				if err := a.printRecords(records, format, time.Now()); err != nil {
					return err
				}
			}
			return missing
		},
	}
	cmd.Flags().StringVar(&format, "format", "json", "text or json")
	return cmd
}

func newGCCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Give back what nobody looks after, and remove damaged instances",
		Long: `Give back what instances held that ended with their supervisor, and mark them as failed;
most verbs do that first, too. Remove instances whose records are damaged, and print
their names. Records of another version are left alone: 'rm --force' removes them. Warn
of what runs and is not noted here, by its ID: 'rm --force ID' ends it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := a.here().GC(cmd.Context())
			for _, name := range removed {
				fmt.Fprintln(a.Stdout, cli.Printable(name))
			}
			return err
		},
	}
	return cmd
}
