// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/signer/regular"
)

type infoOptions struct{ record, replay, format string }

func newInfoCmd(a *app) *cobra.Command {
	var o infoOptions
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show the host's cores, memory and devices, and who holds them",
		Long: `Show the host's cores, memory and devices, who holds them, and the back ends.

--record writes what this was read from as a tar archive: files of /sys and /proc
without serial numbers and processes. --replay shows such a host instead of this
one, for which nothing is held.`,
		Example: `  mortise info
  mortise info --record host.tar
  mortise info --replay host.tar --format json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := cli.CheckFormat(o.format); err != nil {
				return err
			}
			if o.record != "" {
				return regular.Replace(o.record, func(w io.Writer) error { return alloc.Record(a.sysroot, w) })
			}
			return a.showInfo(o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.record, "record", "", "write a recording of this host to FILE")
	f.StringVar(&o.replay, "replay", "", "show the host of the recording FILE")
	f.StringVar(&o.format, "format", "text", "text or json")
	cmd.MarkFlagsMutuallyExclusive("record", "replay")
	return cmd
}

// info is the JSON form.
type info struct {
	Topology *alloc.Topology  `json:"topology"`
	Held     []alloc.Holding  `json:"held"`
	Reserved alloc.Reserve    `json:"reserved"` // what the host keeps for itself
	Free     []alloc.NodeFree `json:"free"`     // in whole cores, and ordinary memory
	Backends []backend        `json:"backEnds"`
}

type backend struct {
	Name     manifest.Target     `json:"name"`
	Usable   bool                `json:"usable"`
	Reason   string              `json:"reason,omitempty"` // why not
	Can      loader.Capabilities `json:"can"`
	Survives bool                `json:"survives"` // its instances outlive their supervisor
}

func (a *app) showInfo(o infoOptions) error {
	i, err := a.readInfo(o)
	if err != nil {
		return err
	}
	if o.format == "json" {
		return a.PrintJSON(i)
	}
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	i.print(w)
	return w.Flush()
}

func (a *app) readInfo(o infoOptions) (*info, error) {
	e := a.here()
	i := &info{}
	var err error
	for _, b := range e.Backends {
		i.Backends = append(i.Backends, newBackend(b))
	}
	if o.replay != "" {
		if e, err = a.there(o.replay); err != nil {
			return nil, err
		}
	}
	held, err := e.Held()
	if err != nil {
		return nil, err
	}
	if i.Topology, err = alloc.Read(e.Root); err != nil {
		return nil, fmt.Errorf("reading the host: %w", err)
	}
	i.Topology = i.Topology.With(held.Instances)
	i.Held, i.Free = append([]alloc.Holding{}, held.Instances...), append([]alloc.NodeFree{}, i.Topology.Free(held)...)
	i.Reserved = held.Host
	i.Reserved.CPUs = i.Topology.Reserved(held.Host)
	return i, nil
}

func newBackend(b loader.Backend) backend {
	_, survives := b.(loader.Survivor)
	out := backend{Name: b.Name(), Usable: true, Can: b.Can(), Survives: survives}
	if err := b.Check(); err != nil {
		out.Usable, out.Reason = false, err.Error()
	}
	return out
}

func (i *info) print(w *tabwriter.Writer) {
	fmt.Fprintln(w, "NODE\tPACKAGE\tCORE\tCPUS\tSTATE\tHELD BY")
	for _, core := range i.cores() {
		fmt.Fprintln(w, core)
	}
	fmt.Fprintln(w, "\nNODE\tCPUS\tMEMORY\tFREE\tHUGE PAGES (FREE OF ALL)")
	for _, n := range i.Topology.Nodes {
		var huge []string
		for _, h := range n.HugePages {
			huge = append(huge, fmt.Sprintf("%d of %d of %s", h.Free, h.Total, units.BytesSize(float64(h.Size))))
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", n.ID, n.CPUs, units.BytesSize(float64(n.Total)), units.BytesSize(float64(n.Free)), strings.Join(huge, ", "))
	}
	fmt.Fprintln(w, "\nNODE\tFREE CPUS\tFREE MEMORY")
	for _, n := range i.Free {
		fmt.Fprintf(w, "%d\t%s\t%s\n", n.Node, orNone(n.CPUs.String()), units.BytesSize(float64(n.Memory)))
	}
	fmt.Fprintln(w, "\nDEVICE\tCLASS\tID\tNODE\tIOMMU GROUP\tDRIVER\tHELD BY")
	for _, d := range i.Topology.Devices {
		fmt.Fprintf(w, "%s\t%06x\t%04x:%04x\t%s\t%s\t%s\t%s\n", d.Address, d.Class, d.Vendor, d.Device, number(d.Node), number(d.Group), cli.Printable(d.Driver), i.holder(func(p *alloc.Plan) bool {
			return slices.Contains(p.Devices, d.Address) || slices.Contains(p.Companions, d.Address)
		}))
	}
	fmt.Fprintln(w)
	switch v := i.Topology.Cpuset.Version; v {
	case 0:
		fmt.Fprintln(w, "CPUs cannot be made exclusive: there is no cpuset controller")
	default:
		fmt.Fprintf(w, "CPUs are made exclusive by cpusets of cgroup v%d, below /%s\n", v, i.Topology.Cpuset.Dir)
	}
	for _, b := range i.Backends {
		if b.Usable {
			fmt.Fprintf(w, "back end %s: usable; %s; %s\n", b.Name, b.abilities(), b.Can.Isolation)
		} else {
			fmt.Fprintf(w, "back end %s: not usable: %s\n", b.Name, b.Reason)
		}
	}
}

// abilities are what back ends differ in, for people.
func (b *backend) abilities() string {
	var out []string
	for _, a := range []struct {
		can  bool
		text string
	}{
		{b.Can.Several, "several instances beside the host"}, {!b.Can.Several, "the whole machine"}, {b.Can.Resize, "resize"}, {b.Can.Input, "typing on the console"},
		{b.Can.Network, "network"}, {b.Can.Forwards, "ports"}, {b.Can.Devices, "devices"}, {b.Can.Offline, "CPUs offline to the host"}, {b.Survives, "instances outlive their supervisor"},
	} {
		if a.can {
			out = append(out, a.text)
		}
	}
	return strings.Join(out, ", ")
}

// cores lists the cores, and the CPUs that are off. The place of those that were not
// taken offline by a back end is not known.
func (i *info) cores() []string {
	var rows []string
	for _, c := range i.Topology.CPUs {
		held := i.holder(func(p *alloc.Plan) bool { return p.HeldCPUs().Has(c.ID) })
		switch {
		case len(c.Siblings) == 0:
			rows = append(rows, fmt.Sprintf("-\t-\t-\t%d\toffline\t%s", c.ID, held))
		case c.Siblings[0] == c.ID: // the first of its core stands for all
			state := "online"
			switch {
			case !c.Online:
				state = "taken offline"
			case c.Isolated:
				state = "isolated (isolcpus)"
			}
			rows = append(rows, fmt.Sprintf("%d\t%d\t%d\t%s\t%s\t%s", c.Node, c.Package, c.Core, c.Siblings, state, held))
		}
	}
	return rows
}

// holder names who holds something.
func (i *info) holder(has func(*alloc.Plan) bool) string {
	for _, h := range i.Held {
		if has(&h.Plan) {
			return h.Owner
		}
	}
	if has(&alloc.Plan{CPUs: i.Reserved.CPUs, Devices: i.Reserved.Devices}) {
		return "(the host)"
	}
	return "-"
}

func number(n int) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
