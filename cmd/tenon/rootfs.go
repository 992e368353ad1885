// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/cmd/internal/cli"
)

type rootfsOptions struct {
	image          imageOptions
	output, format string
}

func newRootfsCmd(a *app) *cobra.Command {
	var o rootfsOptions
	cmd := &cobra.Command{
		Use:   "rootfs IMAGE",
		Short: "Write the initramfs of an OCI image alone",
		Long: `Write an image's root file system as an initramfs, and print the digest of the
file. Nothing is added: no PID 1, and so nobody who could apply extended
attributes, which the format has no place for. --allow-drop lets them go.

IMAGE is a registry reference, or oci:DIR[:TAG], oci-archive:FILE[:TAG],
docker-archive:FILE[:REF], dir:ROOTFS.`,
		Example: `  tenon rootfs oci:redis-image -o redis.cpio.zst
  tenon rootfs oci:nginx-image --allow-drop usr/bin/ping -o - | cpio -itv`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.rootfs(cmd, args[0], o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "FILE.cpio.zst, FILE.cpio, or - for stdout without compression (default ./NAME.cpio.zst)")
	o.image.flags(f)
	f.StringVar(&o.format, "format", "text", "text or json")
	return cmd
}

func (a *app) rootfs(cmd *cobra.Command, image string, o rootfsOptions) error {
	if err := cli.CheckFormat(o.format); err != nil {
		return err
	}
	platform, limits, err := o.image.parse()
	if err != nil {
		return err
	}
	bars := newBars(a.screen)
	req := builder.FlattenRequest{
		Image: image, Platform: platform, AllowDrop: o.image.allowDrop, Output: o.output, Limits: limits, Progress: bars.update,
	}
	if o.output == "-" {
		if o.format == "json" {
			return cli.Exit(cli.ExitUsage, errors.New("--format json: stdout is where the archive goes"))
		}
		req.Stdout = a.Stdout
	}
	started := time.Now()
	r, err := builder.Flatten(cmd.Context(), req)
	bars.done(err == nil)
	if err != nil {
		return err
	}
	if o.format == "json" {
		return a.PrintJSON(r)
	}
	fmt.Fprintf(a.Stderr, "image      %s\n", size(r.Image))
	fmt.Fprintf(a.Stderr, "initramfs  %s, %d entries of %s\n", size(r.Size), r.Fidelity.Entries, size(r.Fidelity.Bytes))
	a.sayFidelity(r.Fidelity)
	fmt.Fprintf(a.Stderr, "took       %.1f s\n", time.Since(started).Seconds())
	if req.Stdout == nil {
		_, err = fmt.Fprintln(a.Stdout, r.Digest)
	}
	return err
}

// sayFidelity tells people how the initramfs differs from the image.
func (a *app) sayFidelity(f *fidelity.Report) {
	fidelityRows(f, false, func(name, text string) { fmt.Fprintf(a.Stderr, "%-10s %s\n", name, cli.Printable(text)) })
}

// fidelityRows names each difference; what a build always adds is for those who
// want all.
func fidelityRows(f *fidelity.Report, all bool, row func(name, text string)) {
	for _, p := range f.Added {
		if all {
			row("added", p)
		}
	}
	for _, d := range f.Dropped {
		text := fmt.Sprintf("%d entries, %s, by %s", d.Entries, size(d.Bytes), d.By)
		if d.Path != "" {
			text = fmt.Sprintf("%s: %s: %s", d.Path, text, d.Why)
		}
		row("dropped", text)
	}
	for _, c := range f.Changed {
		row("changed", fmt.Sprintf("%s: %s, by %s: %s", c.Path, c.What, c.By, c.Why))
	}
	if f.Xattrs.Count > 0 {
		row("xattrs", fmt.Sprintf("%d, which PID 1 sets", f.Xattrs.Count))
	}
	for _, c := range f.Xattrs.Capabilities {
		row("capable", c.Path+" "+c.Capabilities)
	}
}
