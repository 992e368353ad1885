// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle/regular"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
)

type infoOptions struct{ record, replay, state, format string }

func newInfoCmd(a *cli.App) *cobra.Command {
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
				return record(o.record)
			}
			return showInfo(a, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.record, "record", "", "write a recording of this host to FILE")
	f.StringVar(&o.replay, "replay", "", "show the host of the recording FILE")
	f.StringVar(&o.state, "state", instance.DefaultDir, "directory of what mortise knows")
	f.StringVar(&o.format, "format", "text", "text or json")
	cmd.MarkFlagsMutuallyExclusive("record", "replay")
	return cmd
}

func record(path string) error {
	return regular.Replace(path, func(w io.Writer) error { return alloc.Record(alloc.Dir("/"), w) })
}

// info is the JSON form.
type info struct {
	Topology *alloc.Topology `json:"topology"`
	Held     []alloc.Holding `json:"held"`
	Backends []backend       `json:"backEnds"`
}

type backend struct {
	Name   string `json:"name"`
	Usable bool   `json:"usable"`
	Detail string `json:"detail"`
}

func showInfo(a *cli.App, o infoOptions) error {
	i, err := readInfo(o)
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

func readInfo(o infoOptions) (*info, error) {
	i := &info{Held: []alloc.Holding{}, Backends: []backend{qemu()}}
	root := alloc.Dir("/")
	if o.replay != "" {
		f, err := os.Open(o.replay)
		if err != nil {
			return nil, fmt.Errorf("recording: %w", err)
		}
		defer f.Close()
		if root, err = alloc.Replay(f); err != nil {
			return nil, fmt.Errorf("recording %q: %w", o.replay, err)
		}
	}
	var err error
	if i.Topology, err = alloc.Read(root); err != nil {
		return nil, fmt.Errorf("reading the host: %w", err)
	}
	if o.replay != "" {
		return i, nil
	}
	held, err := (&alloc.Host{Root: root, State: filepath.Join(o.state, allocDir)}).Held()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // nothing ran here yet
		return nil, fmt.Errorf("reading what is held: %w", err)
	}
	i.Held = append(i.Held, held...)
	return i, nil
}

// allocDir is where, in the directory of what mortise knows, package alloc has its
// state. The dot keeps it apart from instances.
const allocDir = ".alloc"

func qemu() backend {
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return backend{"qemu", false, "qemu-system-x86_64 is not installed"}
	}
	return backend{"qemu", true, path + ": a virtual machine, for development and CI"}
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
		usable := map[bool]string{true: "usable", false: "not usable"}[b.Usable]
		fmt.Fprintf(w, "back end %s: %s (%s)\n", b.Name, usable, b.Detail)
	}
}

// cores lists the cores, and the CPUs that are off, whose place is not known.
func (i *info) cores() []string {
	var rows []string
	for _, c := range i.Topology.CPUs {
		held := i.holder(func(p *alloc.Plan) bool { return p.HeldCPUs().Has(c.ID) })
		switch {
		case !c.Online:
			rows = append(rows, fmt.Sprintf("-\t-\t-\t%d\toffline\t%s", c.ID, held))
		case c.Siblings[0] == c.ID: // the first of its core stands for all
			state := "online"
			if c.Isolated {
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
	return "-"
}

func number(n int) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
