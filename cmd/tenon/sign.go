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
	var phase phases
	cmd := &cobra.Command{
		Use:   "sign BUNDLE --key KEY",
		Short: "Sign a bundle",
		Long: `Sign a bundle in every way that somebody will check, and print its digest,
which stays as it was: the signatures are referrers of the bundle.

  authenticode  over the kernel image: the host's kernel checks it at kexec
  statement     over the image, its target and seal: mortise.ko checks it
  sigstore      over the bundle's digest: mortise and cosign check it

BUNDLE is oci:DIR, oci-archive:FILE, a path to either, or HOST/NAME:TAG.

Where the key is not where the bundle is, sign in two phases: --prepare writes a
request, JSON with all that is to be signed; --request answers it, with the key
and without the bundle; --attach checks the answer and gives it to the bundle.`,
		Example: `  tenon key create keys
  tenon sign redis.tenon --key keys/signing.key

  tenon sign --prepare redis.tenon -o request.json
  tenon sign --request request.json --key keys/signing.key -o signed.json
  tenon sign --attach signed.json redis.tenon`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := phase.check(&o, args); err != nil {
				return usage(cmd, err)
			}
			switch {
			case phase.prepare:
				return a.prepareSigning(cmd.Context(), args[0], phase.output)
			case phase.request != "":
				return a.answerRequest(cmd.Context(), &o, phase.request, phase.output)
			case phase.attach != "":
				return a.attachSignatures(cmd.Context(), args[0], phase.attach, o.cert)
			}
			key, err := signer.Open(o.key, o.cert)
			if err != nil {
				return err
			}
			return a.sign(cmd.Context(), args[0], key)
		},
	}
	o.flags(cmd.Flags())
	phase.flags(cmd.Flags())
	cmd.MarkFlagsMutuallyExclusive("prepare", "request", "attach")
	cmd.MarkFlagsMutuallyExclusive("prepare", "key", "attach")
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
