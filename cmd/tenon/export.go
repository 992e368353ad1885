// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer/trust"
)

type exportOptions struct {
	format, output, cert string
	allowUnsigned        bool
}

func newExportCmd(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export BUNDLE",
		Short: "Write a bundle's signed kernel for kexec, firmware or another boot loader",
		Long: `Write a bundle in a form that others boot.

  kernel  the bzImage with its Authenticode signatures, as kexec_file_load(2)
          and UEFI firmware take it; the signature of --cert is the first, which
          is the only one that a kernel checks
  dir     a new directory with that, a detached initramfs, the command line, the
          bundle's documents, and the signatures that are not inside the image

Trust is not judged here: that is what verify does.`,
		Example: `  tenon export redis.tenon --format kernel -o redis.bzImage --cert keys/ca.crt`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.export(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "kernel", "kernel or dir")
	f.StringVarP(&o.output, "output", "o", "", "file or new directory (default ./NAME.bzImage or ./NAME)")
	f.StringVar(&o.cert, "cert", "", "put the signature first that this certificate, or one that it issued, made (PEM file)")
	f.BoolVar(&o.allowUnsigned, "allow-unsigned", false, "export a bundle that nobody signed")
	cmd.MarkFlagsMutuallyExclusive("cert", "allow-unsigned")
	return cmd
}

func (a *app) export(ctx context.Context, ref string, o exportOptions) (err error) {
	if o.format != "kernel" && o.format != "dir" {
		return cli.Exit(cli.ExitUsage, fmt.Errorf("--format %q is neither kernel nor dir", o.format))
	}
	var who *trust.Identity
	if o.cert != "" {
		policy, err := (&loader.Trust{Cert: o.cert}).Load(true)
		if err != nil {
			return err
		}
		who = &policy.Trust.Identities[0]
	}
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	e, err := builder.OpenExport(ctx, b, who, o.allowUnsigned)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if o.format == "kernel" {
		if o.output == "" {
			o.output = b.Manifest.Name + ".bzImage"
		}
		err = e.Kernel(o.output)
	} else {
		if o.output == "" {
			o.output = b.Manifest.Name
		}
		if err = e.Dir(ctx, o.output); err != nil {
			err = fmt.Errorf("writing %q: %w", o.output, err)
		}
	}
	if err != nil {
		return err
	}
	if !b.Manifest.Initramfs.Sealed {
		a.Log.Warn("detached: the kernel's signature does not cover the initramfs and the command line", "bundle", ref)
	}
	_, err = fmt.Fprintln(a.Stdout, o.output)
	return err
}
