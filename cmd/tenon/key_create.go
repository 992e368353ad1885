// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/inventory"
)

type keyCreateOptions struct {
	issuerOptions
	profile, algorithm, name, format string
}

func newKeyCreateCmd(a *app) *cobra.Command {
	var o keyCreateOptions
	cmd := &cobra.Command{
		Use:   "create DIR",
		Short: "Make keys and certificates",
		Long: `Make a certificate by a profile, and its key, in DIR, which must not exist yet.
Print the fingerprint of the key.

  root          a CA that signs itself: issues intermediates (10 years)
  intermediate  a CA below a root: issues release certificates (5 years)
  release       signs bundles and modules (90 days)
  development   a CA, and a leaf below it that signs (a year)

  ca.crt       a CA's certificate, then those of its issuers. The root's is to be
               trusted: 'tenon verify --cert', a kernel's keyring, UEFI's db
  ca.key       issues certificates: keep it away
  signing.key  signs bundles: 'tenon sign --key'
  signing.crt  its certificate, then those of its issuers
  signing.pub  its public key: 'cosign verify --key'

Keys are encrypted with the passphrase from --passphrase-fd or $TENON_PASSPHRASE,
if there is one. The issuer's key is decrypted with that in
$TENON_ISSUER_PASSPHRASE, or else the same.`,
		Example: `  tenon key create keys --name "Example Inc."
  tenon key create root --profile root --name "Example root"
  tenon key create ca --profile intermediate --issuer root --name "Example kernels"
  tenon key create release --profile release --issuer ca --name "Example release 7"
  tenon key create hsm --profile release --issuer ca --name "Example HSM" --public-key hsm.csr`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.keyCreate(cmd, args[0], o) },
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.profile, "profile", signer.Development, strings.Join(signer.ProfileNames(), ", "))
	f.StringVar(&o.algorithm, "algorithm", signer.DefaultAlgorithm, "of the keys: "+strings.Join(signer.Algorithms(), ", "))
	f.StringVar(&o.name, "name", "", "common name; development adds CA or signing to it (default there \"tenon development\")")
	f.IntVar(&o.days, "days", 0, "how long the certificates are valid (default: by profile, and no longer than the issuer)")
	f.StringVar(&o.issuer, "issuer", "", "folder of the CA that issues the certificate, or its key: as --key of 'tenon sign'")
	f.StringVar(&o.format, "format", "text", "text or json")
	cmd.MarkFlagsMutuallyExclusive("algorithm", "public-key")
	return cmd
}

func (a *app) keyCreate(cmd *cobra.Command, dir string, o keyCreateOptions) error {
	profile, err := o.check(cmd, dir)
	if err != nil {
		return err
	}
	options, err := o.options(cmd)
	if err != nil {
		return err
	}
	options.Name, options.Profile, options.Algorithm = o.name, o.profile, o.algorithm
	if options.Name == "" {
		options.Name = "tenon development"
	}
	if options.Valid == 0 {
		options.Valid = time.Duration(profile.Days) * 24 * time.Hour
		if options.Issuer != nil {
			options.Valid = min(options.Valid, time.Until(options.Issuer.Chain[0].NotAfter))
		}
	}
	if err := signer.Create(dir, options); err != nil {
		return err
	}
	made, err := inventory.Look(dir, options.Passphrase, time.Now())
	if err != nil {
		return err
	}
	a.warnOfKey(dir, options, made.Certificates[0].X509)
	if o.format == "json" {
		return a.PrintJSON(made)
	}
	_, err = fmt.Fprintln(a.Stdout, made.Certificates[0].Fingerprint)
	return err
}

// check finds what is wrong with the command line alone.
func (o *keyCreateOptions) check(cmd *cobra.Command, dir string) (signer.Profile, error) {
	p, err := signer.ParseProfile(o.profile)
	wrong := []error{err, signer.CheckAlgorithm(o.algorithm), cli.CheckFormat(o.format)}
	switch {
	case dir == "":
		wrong = append(wrong, errNoFolder)
	case err != nil:
	case p.SelfSigned && (o.issuer != "" || o.issuerCert != "" || o.publicKey != ""):
		wrong = append(wrong, fmt.Errorf("profile %s signs itself, with a key that is made here: no --issuer, no --public-key", p.Name))
	case !p.SelfSigned && o.issuer == "":
		wrong = append(wrong, fmt.Errorf("profile %s needs an --issuer", p.Name))
	case o.name == "" && p.Name != signer.Development:
		wrong = append(wrong, fmt.Errorf("profile %s needs a --name", p.Name))
	}
	if err := errors.Join(wrong...); err != nil {
		return p, cli.Usage(cmd, err)
	}
	return p, nil
}
