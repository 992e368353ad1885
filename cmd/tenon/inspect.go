// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

func newInspectCmd(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "inspect BUNDLE", Short: "Show what a bundle is", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			b, err := bundle.Open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer b.Close()
			if format == "json" {
				return a.printJSON(inspection{b.Digest.String(), layers(b), b.Manifest})
			}
			return a.printBundle(b)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// inspection is the JSON form of inspect.
type inspection struct {
	Digest   string             `json:"digest"`
	Layers   []layer            `json:"layers"`
	Manifest *manifest.Manifest `json:"manifest"`
}

type layer struct {
	MediaType types.MediaType `json:"mediaType"`
	Digest    string          `json:"digest"`
	Size      int64           `json:"size"`
}

func layers(b *bundle.Bundle) []layer {
	var out []layer
	for _, mt := range []types.MediaType{bundle.KernelType, bundle.InitramfsType, bundle.ConfigType, bundle.SystemMapType, bundle.FidelityType} {
		if n := b.Size(mt); n > 0 {
			out = append(out, layer{mt, b.LayerDigest(mt).String(), n})
		}
	}
	return out
}

func (a *app) printBundle(b *bundle.Bundle) error {
	m := b.Manifest
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	row("name", "%s", m.Name)
	row("digest", "%s", b.Digest)
	row("target", "%s on %s", m.Target, m.Platform)
	row("image", "%s", m.Image.Reference)
	row("", "%s", m.Image.Digest)
	row("recipe", "%s", m.Recipe)
	row("kernel", "Linux %s, %s", m.Kernel.Release, size(b.Size(bundle.KernelType)))
	form := "detached: outside the kernel image, the weaker form"
	if m.Initramfs.Sealed {
		form = "sealed inside the kernel image"
	}
	row("initramfs", "%s, %d entries, %s unpacked, %s", size(m.Initramfs.Size), m.Initramfs.Entries, size(m.Initramfs.Unpacked), form)
	row("command line", "%s", m.CommandLine)
	row("app", "%q", append(m.App.Entrypoint[:len(m.App.Entrypoint):len(m.App.Entrypoint)], m.App.Cmd...))
	for _, e := range m.App.Env {
		row("environment", "%s", e)
	}
	for _, f := range []struct{ name, value string }{
		{"user", m.App.User}, {"working dir", m.App.WorkingDir}, {"stop signal", m.App.StopSignal}, {"ports", strings.Join(m.App.Ports, " ")},
	} {
		if f.value != "" {
			row(f.name, "%s", f.value)
		}
	}
	if h := m.App.Health; h != nil {
		check := fmt.Sprintf("%q", h.Exec)
		if h.TCP != 0 {
			check = fmt.Sprintf("TCP port %d", h.TCP)
		}
		row("health", "%s every %s", check, h.Interval)
	}
	for _, p := range m.Parameters {
		row("parameter", "%s (%s) %s", p.Name, p.Type, p.Description)
	}
	row("CPUs", "%d to %d", m.Claims.CPUs.Min, m.Claims.CPUs.Max)
	row("memory", "%s to %s", size(m.Claims.Memory.Min), size(m.Claims.Memory.Max))
	for _, d := range m.Claims.Devices {
		row("devices", "%s, %d to %d", d.Kind, d.Count.Min, d.Count.Max)
	}
	row("signers", "none: the bundle is not signed")
	for _, l := range layers(b) {
		row("layer", "%s  %s  %s", l.Digest, size(l.Size), l.MediaType)
	}
	return w.Flush()
}
