// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer"
)

// keyOptions name a key and its certificates.
type keyOptions struct{ key, cert string }

func (o *keyOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.key, "key", "", "key to sign with: file:PATH or a path to a PEM private key")
	f.StringVar(&o.cert, "cert", "", "its certificate and the issuers', PEM (default: in the key's file, or beside it with the extension .crt)")
}

func newSignCmd(a *app) *cobra.Command {
	var o keyOptions
	var module, output string
	cmd := &cobra.Command{
		Use:   "sign BUNDLE --key KEY",
		Short: "Sign a bundle, or a kernel module",
		Long: `Sign a bundle in every way that somebody will check, and print its digest,
which stays as it was: the signatures are referrers of the bundle.

  authenticode  over the kernel image: the host's kernel checks it at kexec
  statement     over the image, its target and seal: mortise.ko checks it
  sigstore      over the bundle's digest: mortise and cosign check it

BUNDLE is oci:DIR, oci-archive:FILE, a path to either, or HOST/NAME:TAG.

With --module, sign a kernel module instead, as kernels check it when they load
it. Its signature replaces those that it has; without -o, the file is replaced.`,
		Example: `  tenon key create keys
  tenon sign redis.tenon --key keys/signing.key
  tenon sign --module mortise.ko --key keys/signing.key`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case module == "" && output != "":
				return errors.New("-o is for --module alone")
			case module == "":
				return cobra.ExactArgs(1)(cmd, args)
			case len(args) > 0:
				return errors.New("give a bundle or --module, not both")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := signer.Open(o.key, o.cert)
			if err != nil {
				return err
			}
			if module != "" {
				return a.signModule(module, output, key)
			}
			return a.sign(cmd.Context(), args[0], key)
		},
	}
	o.flags(cmd.Flags())
	cmd.Flags().StringVar(&module, "module", "", "sign this kernel module (FILE.ko)")
	cmd.Flags().StringVarP(&output, "output", "o", "", "write the signed module to this file")
	if err := cmd.MarkFlagRequired("key"); err != nil {
		panic(err) // a flag that is not there
	}
	return cmd
}

func (a *app) sign(ctx context.Context, ref string, key *signer.Key) (err error) {
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := builder.Sign(ctx, b, key); err != nil {
		return err
	}
	a.saySigned(key)
	_, err = fmt.Fprintln(a.stdout, b.Digest)
	return err
}

func (a *app) saySigned(key *signer.Key) {
	by := loader.Name(&signer.Signer{Key: key.Public(), Chain: key.Chain})
	for _, k := range loader.Kinds {
		fmt.Fprintf(a.stderr, "signed     %s, by %s\n", k.Name, printable(by))
	}
}
