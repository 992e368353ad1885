// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/loader"
)

// NewVerifyCmd makes the verb verify.
func NewVerifyCmd(a *App) *cobra.Command {
	var trust TrustFlags
	var format string
	cmd := &cobra.Command{
		Use:   "verify BUNDLE",
		Short: "Check a bundle and its signatures",
		Long: `Check every byte of a bundle, every signature that is attached to it, and
whether one that you trust made one of each kind. Print its digest if so; end
with status 3 if not. With --state, compare with what this host has seen, but
remember nothing: 'run' does that.

BUNDLE is oci:DIR, oci-archive:FILE, a path to either, or HOST/NAME:TAG.`,
		Example: `  ` + a.Name + ` verify redis.tenon --cert keys/ca.crt
  ` + a.Name + ` verify registry.example/team/redis:1.4 --policy policy.toml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := CheckFormat(format); err != nil {
				return err
			}
			trust.Default(a.Policy, a.State)
			if err := trust.Check(); err != nil {
				return err
			}
			trust.Guarded = a.Guarded
			policy, err := trust.Load(true)
			if errors.Is(err, loader.ErrNoTrust) {
				return Usage(cmd, err)
			}
			if err != nil {
				return err
			}
			return a.verify(cmd.Context(), args[0], policy, format == "json")
		},
	}
	trust.Flags(cmd.Flags())
	trust.Exclusive(cmd)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// Verdict is the JSON form of verify.
type Verdict struct {
	Bundle   string         `json:"bundle"` // as it was given
	Accepted bool           `json:"accepted"`
	Digest   string         `json:"digest,omitempty"`
	Identity string         `json:"identity,omitempty"` // who signed it, in the policy's words
	Reason   string         `json:"reason,omitempty"`   // why it was not accepted
	Checks   []loader.Check `json:"checks"`
}

func (a *App) verify(ctx context.Context, ref string, policy loader.Policy, asJSON bool) error {
	out := Verdict{Bundle: ref, Checks: []loader.Check{}}
	stop := a.Working()
	v, err := loader.Verify(ctx, ref, policy, func(c loader.Check) { out.Checks = append(out.Checks, c) })
	stop()
	if err == nil {
		defer v.Close()
		out.Accepted, out.Digest, out.Identity = true, v.Digest().String(), v.Identity()
	} else {
		out.Reason = err.Error()
	}
	if asJSON {
		if failed := a.PrintJSON(out); failed != nil {
			return failed
		}
		return err
	}
	w := tabwriter.NewWriter(a.Stderr, 0, 8, 2, ' ', 0)
	for _, c := range out.Checks {
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Result, Printable(c.Object), Printable(c.Detail))
	}
	if flushed := w.Flush(); err != nil || flushed != nil {
		return err
	}
	_, err = fmt.Fprintln(a.Stdout, out.Digest)
	return err
}
