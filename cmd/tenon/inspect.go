// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/kconfig"
)

func newInspectCmd(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect BUNDLE",
		Short: "Show what a bundle is",
		Long: `Show what a bundle is, and who signed what of it. Signatures are checked, but
nobody is trusted here: anyone can have made them. That is what verify judges.

BUNDLE is oci:DIR, oci-archive:FILE, a path to either, or HOST/NAME:TAG.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := cli.CheckFormat(format); err != nil {
				return err
			}
			stop := a.working()
			defer stop()
			b, err := bundle.Open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, b.Close()) }()
			i, err := inspectBundle(cmd.Context(), b)
			stop()
			if err != nil {
				return err
			}
			if format == "json" {
				return a.PrintJSON(i)
			}
			return a.printInspection(i)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// inspection is the JSON form of inspect.
type inspection struct {
	Digest     string             `json:"digest"`
	Layers     []layer            `json:"layers"`
	Symbols    int                `json:"symbols"` // Kconfig symbols that are on
	Signatures []checkedSignature `json:"signatures"`
	Referrers  []referrer         `json:"referrers"` // what else refers to the bundle
	Fidelity   *fidelity.Report   `json:"fidelity"`
	Manifest   *manifest.Manifest `json:"manifest"`
}

type layer struct {
	MediaType types.MediaType `json:"mediaType"`
	Digest    string          `json:"digest"`
	Size      int64           `json:"size"`
}

// checkedSignature is a signature that was checked, by somebody whom nobody judged.
type checkedSignature struct {
	Kind   string `json:"kind"`
	Digest string `json:"digest"` // of the referrer
	Covers string `json:"covers"`
	Signer string `json:"signer,omitempty"`
	Error  string `json:"error,omitempty"` // why it proves nothing
}

type referrer struct {
	ArtifactType string `json:"artifactType"`
	Digest       string `json:"digest"`
}

func inspectBundle(ctx context.Context, b *bundle.Bundle) (*inspection, error) {
	i := &inspection{Digest: b.Digest.String(), Manifest: b.Manifest.Masked(), Signatures: []checkedSignature{}, Referrers: []referrer{}}
	for _, mt := range b.Layers() {
		i.Layers = append(i.Layers, layer{mt, b.LayerDigest(mt).String(), b.Size(mt)})
	}
	config, err := b.ReadLayer(bundle.ConfigType)
	if err != nil {
		return nil, err
	}
	parsed, err := kconfig.ParseConfig(string(bundle.ConfigType), config)
	if err != nil {
		return nil, err
	}
	i.Symbols = parsed.Enabled()
	if i.Fidelity, err = fidelity.Read(b); err != nil {
		return nil, err
	}
	i.Signatures, err = checkedSignatures(ctx, b)
	for _, r := range b.Referrers() {
		if kindName(r.Type) == r.Type {
			i.Referrers = append(i.Referrers, referrer{r.Type, r.Digest.String()})
		}
	}
	return i, err
}

// checkedSignatures lists the signatures, with who made them as far as
// cryptography goes.
func checkedSignatures(ctx context.Context, b *bundle.Bundle) ([]checkedSignature, error) {
	if len(b.Referrers()) == 0 {
		return []checkedSignature{}, nil
	}
	kernel, err := signature.OpenKernel(ctx, b)
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	signatures, err := signature.Read(ctx, b, kernel)
	out := []checkedSignature{}
	for _, s := range signatures {
		one := checkedSignature{Kind: s.Kind.Name, Digest: s.Referrer.String(), Covers: s.Kind.Covers}
		if s.Err != nil {
			one.Error = s.Err.Error()
		} else {
			one.Signer = s.Signer.String()
		}
		out = append(out, one)
	}
	return out, err
}

// kindName names an artifact type for people, if it is a signature's.
func kindName(artifactType string) string {
	if k := signature.KindOf(artifactType); k != nil {
		return k.Name
	}
	return artifactType
}

func (a *app) printInspection(i *inspection) error {
	m := i.Manifest
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, cli.Printable(fmt.Sprintf(format, args...)))
	}
	row("name", "%s", m.Name)
	if m.BundleVersion != "" {
		row("version", "%s", m.BundleVersion)
	}
	row("digest", "%s", i.Digest)
	row("target", "%s on %s", m.Target, m.Platform)
	row("image", "%s", m.Image.Reference)
	row("", "%s", m.Image.Digest)
	row("recipe", "%s", m.Recipe)
	row("kernel", "Linux %s, %d options", m.Kernel.Release, i.Symbols)
	form := "detached: the kernel takes any, the weaker form"
	if m.Initramfs.Sealed {
		form = "sealed: the kernel unpacks no other"
	}
	row("initramfs", "%s, %d entries, %s unpacked, %s", size(m.Initramfs.Size), m.Initramfs.Entries, size(m.Initramfs.Unpacked), form)
	fidelityRows(i.Fidelity, true, func(name, text string) { row(name, "%s", text) })
	row("command line", "%s", m.CommandLine)
	printApp(row, &m.App)
	for _, p := range m.Parameters {
		kind := p.Type
		if p.Secret {
			kind += ", secret"
		}
		row("parameter", "%s (%s) %s", p.Name, kind, p.Description)
	}
	row("CPUs", "%d to %d", m.Claims.CPUs.Min, m.Claims.CPUs.Max)
	row("memory", "%s to %s: less does not boot", size(m.Claims.Memory.Min), size(m.Claims.Memory.Max))
	for _, d := range m.Claims.Devices {
		row("devices", "%s, %d to %d", d.Kind, d.Count.Min, d.Count.Max)
	}
	for _, l := range i.Layers {
		row("layer", "%s  %s  %s", l.Digest, size(l.Size), l.MediaType)
	}
	if len(i.Signatures) == 0 {
		row("signed", "no")
	}
	for _, s := range i.Signatures {
		if s.Error != "" {
			row("unproven", "%s %s: %s", s.Kind, s.Digest, s.Error)
			continue
		}
		row("signed", "%s, by %s", s.Kind, s.Signer)
		row("", "covers %s", s.Covers)
	}
	for _, r := range i.Referrers {
		row("attached", "%s  %s", r.Digest, r.ArtifactType)
	}
	return w.Flush()
}

func printApp(row func(name, format string, args ...any), app *manifest.App) {
	row("app", "%q", append(app.Entrypoint[:len(app.Entrypoint):len(app.Entrypoint)], app.Cmd...))
	for _, e := range app.Env {
		row("environment", "%s", e)
	}
	for _, f := range []struct{ name, value string }{
		{"user", app.User}, {"working dir", app.WorkingDir}, {"stop signal", app.StopSignal}, {"ports", strings.Join(app.Ports, " ")},
		{"volumes", strings.Join(app.Volumes, " ")},
	} {
		if f.value != "" {
			row(f.name, "%s", f.value)
		}
	}
	if app.ReadOnly {
		row("root", "read-only")
	}
	if app.PIDNamespace {
		row("process", "PID 1 of a PID namespace")
	}
	if h := app.Health; h != nil {
		check := fmt.Sprintf("%q", h.Exec)
		if h.TCP != 0 {
			check = fmt.Sprintf("TCP port %d", h.TCP)
		}
		row("health", "%s every %s", check, h.Interval)
	}
}
