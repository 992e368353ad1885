// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader/alloc"
)

func newPlanCmd(a *app) *cobra.Command {
	var request requestOptions
	var replay, format string
	cmd := &cobra.Command{
		Use:   "plan BUNDLE",
		Short: "Show what an instance of a bundle would get, and change nothing",
		Long: `Verify a bundle and show which CPUs, memory and devices an instance of it would get now,
and what holding them means on its back end. End with status 4 when others hold what
is needed. The flags are those of 'run'.`,
		Example: `  mortise plan --policy policy.toml --cpus 4 redis.tenon
  mortise plan --replay host.tar --cert ca.crt redis.tenon`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.CheckFormat(format); err != nil {
				return err
			}
			r, err := request.request(a)
			if err != nil {
				return cli.Usage(cmd, err)
			}
			e := a.here()
			if replay != "" {
				if e, err = a.there(replay); err != nil {
					return err
				}
			}
			v, err := a.accept(cmd.Context(), args[0], r.Trust, true)
			if err != nil {
				return err
			}
			defer v.Close()
			m := v.Manifest()
			p, err := e.Plan(cmp.Or(request.name, m.Name), m, &r)
			if err != nil {
				return err
			}
			if format == "json" {
				return a.PrintJSON(p)
			}
			t, err := alloc.Read(e.Root)
			if err != nil {
				return err
			}
			return a.printPlan(p, t.Cpuset.Version)
		},
	}
	request.flags(cmd)
	cmd.Flags().StringVar(&replay, "replay", "", "plan for the host of the recording FILE, on which nothing runs")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// printPlan says what is held, and what that means with a version of cgroup.
func (a *app) printPlan(p *alloc.Plan, cgroup int) error {
	kept, idle := "no other process of the host is scheduled there", "idle"
	switch {
	case p.TakenOffline():
		kept, idle = "they are offline to the host", "offline"
	case cgroup != 2:
		kept = "other processes of the host are not kept out: that takes cgroup v2"
	}
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "CPUs\t%s\teach runs one CPU of the instance; %s\n", p.CPUs, kept)
	if len(p.Siblings) > 0 {
		fmt.Fprintf(w, "siblings\t%s\tthe rest of their cores: held, and %s\n", p.Siblings, idle)
	}
	for _, m := range p.Memory {
		pages := ""
		if p.PageSize > 0 {
			pages = ", in pages of " + units.BytesSize(float64(p.PageSize))
		}
		fmt.Fprintf(w, "memory\t%s\ton node %d%s: taken when the instance starts\n", units.BytesSize(float64(m.Bytes)), m.Node, pages)
	}
	for _, d := range p.Devices {
		fmt.Fprintf(w, "device\t%s\tthe whole function\n", d)
	}
	for _, d := range p.Companions {
		fmt.Fprintf(w, "device\t%s\tof the same IOMMU group: held, and idle\n", d)
	}
	return w.Flush()
}
