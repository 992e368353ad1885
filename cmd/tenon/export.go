// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/uki"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/trust"
)

type exportOptions struct {
	format, output, stub string
	key                  keyOptions // without a key, the certificate chooses the kernel's first signature
	allowUnsigned        bool
}

var errNoStub = errors.New("reading systemd's stub")

// defaultStub is where systemd's packages have it.
const defaultStub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

func newExportCmd(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export BUNDLE",
		Short: "Write a bundle's signed kernel and its initramfs for kexec, firmware or another boot loader",
		Long: `Write a bundle in a form that others boot.

  kernel  two files: the bzImage with its Authenticode signatures, as
          kexec_file_load(2) and UEFI firmware take it, and beside it the
          initramfs, as FILE.initramfs for -o FILE.bzImage. The signature of
          --cert is the first, which is the only one that a kernel checks
  uki     one file for UEFI firmware, a unified kernel image: both, and systemd's
          stub. With --key it is signed as a whole, whoever has signed the bundle.
          kexec does not take it
  dir     a new directory with the two files of "kernel", the command line, the
          bundle's documents, and the signatures that are not inside the image

Trust is not judged here: that is what verify does.`,
		Example: `  tenon export redis.tenon -o redis.bzImage --cert keys/ca.crt
  kexec -s -l redis.bzImage --initrd=redis.initramfs

  tenon export redis.tenon --format uki -o /boot/efi/EFI/Linux/redis.efi --key keys/signing.key`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd.Flags()); err != nil {
				return cli.Usage(cmd, err)
			}
			return a.export(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	o.key.flags(f)
	f.Lookup("key").Usage = "sign a unified kernel image with this key, as sign does"
	f.Lookup("cert").Usage = "put the signature first that this certificate, or one that it issued, made (PEM file); with --key: the key's certificate and the issuers'"
	f.StringVar(&o.format, "format", "kernel", "kernel, uki or dir")
	f.StringVarP(&o.output, "output", "o", "", "file or new directory (default ./NAME.bzImage, ./NAME.efi or ./NAME)")
	f.StringVar(&o.stub, "stub", defaultStub, "systemd's stub for a unified kernel image")
	f.BoolVar(&o.allowUnsigned, "allow-unsigned", false, "export a bundle that nobody signed")
	return cmd
}

// check says which flags do not belong together.
func (o *exportOptions) check(f *pflag.FlagSet) error {
	if o.format != "kernel" && o.format != "uki" && o.format != "dir" {
		return fmt.Errorf("--format %q is none of kernel, uki and dir", o.format)
	}
	if o.allowUnsigned && o.key.cert != "" && o.key.key == "" {
		return errors.New("--cert and --allow-unsigned exclude each other: one chooses a signature, the other wants none")
	}
	for _, name := range []string{"key", "stub"} {
		if o.format != "uki" && f.Changed(name) {
			return fmt.Errorf("--%s is for --format uki", name)
		}
	}
	return nil
}

func (a *app) export(ctx context.Context, ref string, o exportOptions) (err error) {
	var who *trust.Identity
	if o.key.cert != "" && o.key.key == "" {
		policy, err := (&loader.Trust{Cert: o.key.cert}).Load(true)
		if err != nil {
			return err
		}
		who = &policy.Trust.Identities[0]
	}
	stop := a.working()
	defer stop()
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var e *builder.Export
	if o.key.key != "" {
		e, err = builder.OpenPlain(ctx, b)
	} else {
		e, err = builder.OpenExport(ctx, b, who, o.allowUnsigned)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	written, err := a.exportTo(ctx, e, b.Manifest.Name, o)
	stop()
	if err != nil {
		return err
	}
	if !b.Manifest.Initramfs.Sealed {
		a.Log.Warn("detached: the kernel's signature does not cover the initramfs and the command line", "bundle", ref)
	}
	for _, path := range written {
		if _, err := fmt.Fprintln(a.Stdout, path); err != nil {
			return err
		}
	}
	return nil
}

// exportTo writes one form, and returns the paths of what it has written.
func (a *app) exportTo(ctx context.Context, e *builder.Export, name string, o exportOptions) ([]string, error) {
	switch o.format {
	case "dir":
		dir := cmp.Or(o.output, name)
		if err := e.Dir(ctx, dir); err != nil {
			return nil, fmt.Errorf("writing %q: %w", dir, err)
		}
		return []string{dir}, nil
	case "uki":
		return a.exportUKI(ctx, e, cmp.Or(o.output, name+".efi"), o)
	}
	kernel := cmp.Or(o.output, name+".bzImage")
	initramfs := strings.TrimSuffix(kernel, ".bzImage") + ".initramfs"
	return []string{kernel, initramfs}, e.Boot(ctx, kernel, initramfs)
}

func (a *app) exportUKI(ctx context.Context, e *builder.Export, path string, o exportOptions) ([]string, error) {
	if err := regular.CheckOutput(path); err != nil {
		return nil, err // before a key is asked for
	}
	const maxStub = 16 << 20 // bytes
	stub, err := regular.Read(o.stub, maxStub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoStub, err)
	}
	var key *signer.Key
	if o.key.key != "" {
		if key, err = a.openKey(ctx, &o.key); err != nil {
			return nil, err
		}
	} else {
		a.Log.Warn("the file as a whole has no signature: firmware with Secure Boot wants one (--key)", "file", path)
	}
	if err := e.UKI(ctx, path, stub, key); errors.Is(err, uki.ErrStub) {
		return nil, fmt.Errorf("%q: %w", o.stub, err)
	} else if err != nil {
		return nil, err
	}
	a.Log.Info("kexec does not take this file: it takes those of --format kernel", "file", path)
	return []string{path}, nil
}
