// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer"
)

// keyOptions name a key and its certificates.
type keyOptions struct {
	key, cert string
	secrets   secrets
}

func (o *keyOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.key, "key", "", "key to sign with: a PEM file (PATH, file:PATH), pkcs11:URI or NAME://ID, which the program sigstore-kms-NAME reaches")
	f.StringVar(&o.cert, "cert", "", "its certificate and the issuers', PEM (default: in the key's file, or beside it with the extension .crt)")
	o.secrets.flags(f)
}

// openKey opens the key, and names those who will not take its signatures.
func (a *app) openKey(ctx context.Context, o *keyOptions) (*signer.Key, error) {
	key, err := signer.Open(ctx, o.key, signer.OpenOptions{Certificates: o.cert, Secret: o.secrets.ask(ctx)})
	if err == nil {
		a.warnOfHosts(key.Chain[0])
	}
	return key, err
}

func newSignCmd(a *app) *cobra.Command {
	var o keyOptions
	var mode signMode
	cmd := &cobra.Command{
		Use:   "sign BUNDLE --key KEY",
		Short: "Sign a bundle, or a kernel module",
		Long: `Sign a bundle in every way that somebody will check, and print its digest,
which stays as it was: the signatures are referrers of the bundle.

  authenticode  over the kernel image: the host's kernel checks it at kexec
  statement     over the image, its target and seal: mortise.ko checks it
  sigstore      over the bundle's digest: mortise and cosign check it

BUNDLE is oci:DIR, oci-archive:FILE, a path to either, or HOST/NAME:TAG.

An encrypted key's passphrase is taken from --passphrase-fd, or $TENON_PASSPHRASE or
$COSIGN_PASSWORD, or the terminal; the PIN of a token from --passphrase-fd, or
$TENON_PIN, or the terminal. docs/keys.md has more.

Where the key is not where the bundle is, sign in two phases: --prepare writes a
request, JSON with all that is to be signed; --request answers it, with the key
and without the bundle; --attach checks the answer and gives it to the bundle.

With --module, sign a kernel module instead, as kernels check it when they load
it. Its signature replaces those that it has; without -o, the file is replaced.`,
		Example: `  tenon key create keys
  tenon sign redis.tenon --key keys/signing.key
  tenon sign redis.tenon --key 'pkcs11:token=release;object=signing' --cert signing.crt
  tenon sign --module mortise.ko --key keys/signing.key

  tenon sign --prepare redis.tenon -o request.json
  tenon sign --request request.json --key keys/signing.key -o signed.json
  tenon sign --attach signed.json redis.tenon`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mode.check(&o, args); err != nil {
				return cli.Usage(cmd, err)
			}
			switch {
			case mode.prepare:
				return a.prepareSigning(cmd.Context(), args[0], mode.output)
			case mode.request != "":
				return a.answerRequest(cmd.Context(), &o, mode.request, mode.output)
			case mode.attach != "":
				return a.attachSignatures(cmd.Context(), args[0], mode.attach, o.cert)
			}
			key, err := a.openKey(cmd.Context(), &o)
			if err != nil {
				return err
			}
			if mode.module != "" {
				return a.signModule(mode.module, mode.output, key)
			}
			return a.sign(cmd.Context(), args[0], key)
		},
	}
	o.flags(cmd.Flags())
	mode.flags(cmd.Flags())
	cmd.MarkFlagsMutuallyExclusive("prepare", "request", "attach", "module")
	cmd.MarkFlagsMutuallyExclusive("prepare", "key", "attach")
	return cmd
}

// signMode is what is signed, and how, when it is not simply a bundle.
type signMode struct {
	prepare                         bool
	request, attach, module, output string
}

func (m *signMode) flags(f *pflag.FlagSet) {
	f.BoolVar(&m.prepare, "prepare", false, "write what is to be signed, as a request")
	f.StringVar(&m.request, "request", "", "sign this request (FILE), of which no bundle is needed")
	f.StringVar(&m.attach, "attach", "", "attach the signatures of an answered request (FILE)")
	f.StringVar(&m.module, "module", "", "sign this kernel module (FILE.ko)")
	f.StringVarP(&m.output, "output", "o", "", "FILE for a request (default stdout), or for a signed module (default in place)")
}

// check says what the flags and arguments lack, or have too much.
func (m *signMode) check(o *keyOptions, args []string) error {
	alone := m.request != "" || m.module != ""
	switch {
	case o.key == "" && !m.prepare && m.attach == "":
		return errors.New("needs --key, or one of --prepare and --attach")
	case m.prepare && o.cert != "":
		return errors.New("--cert has no use with --prepare")
	case alone && len(args) > 0:
		return errors.New("--request and --module take no bundle beside them")
	case !alone && len(args) == 0:
		return errors.New("BUNDLE is missing")
	case m.output != "" && !m.prepare && !alone:
		return errors.New("-o has no use here: the signatures go to the bundle")
	}
	return nil
}

func (a *app) sign(ctx context.Context, ref string, key *signer.Key) (err error) {
	stop := a.working()
	defer stop()
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := signature.Sign(ctx, b, key); err != nil {
		return err
	}
	stop()
	a.saySigned(key)
	_, err = fmt.Fprintln(a.Stdout, b.Digest)
	return err
}

func (a *app) saySigned(key *signer.Key) {
	by := (&signer.Signer{Key: key.Public(), Chain: key.Chain}).String()
	for _, k := range signature.Kinds {
		fmt.Fprintf(a.Stderr, "signed     %s, by %s\n", k.Name, cli.Printable(by))
	}
}
