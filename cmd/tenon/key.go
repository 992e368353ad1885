// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer"
)

func newKeyCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make, list, replace, revoke and export keys and certificates", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cli.Usage(cmd, fmt.Errorf("no command given")) }}
	cmd.AddCommand(newKeyCreateCmd(a), newKeyLsCmd(a), newKeyShowCmd(a), newKeyRotateCmd(a), newKeyRevokeCmd(a), newKeyExportCmd(a))
	for _, c := range cmd.Commands() {
		c.Args = cli.UsageArgs(c.Args)
	}
	return cmd
}

// issuerOptions name the CA that issues a certificate, and what it issues.
type issuerOptions struct {
	issuer, issuerCert, publicKey string
	days                          int
	secrets                       secrets
}

func (o *issuerOptions) flags(f *pflag.FlagSet) {
	o.secrets.flags(f)
	f.StringVar(&o.issuerCert, "issuer-cert", "", "the issuer's certificates, PEM (default: beside its key with the extension .crt)")
	f.StringVar(&o.publicKey, "public-key", "", "certify this key, which is kept elsewhere: a public key or a certificate signing request (PEM file)")
}

const maxDays = 100 * 365

// options checks what the flags say and reads what they name. Without --days, the
// validity is zero.
func (o *issuerOptions) options(cmd *cobra.Command) (key signer.CreateOptions, err error) {
	if cmd.Flags().Changed("days") {
		if o.days < 1 || o.days > maxDays {
			return key, cli.Exit(cli.ExitUsage, fmt.Errorf("--days %d: must be 1 to %d", o.days, maxDays))
		}
		key.Valid = time.Duration(o.days) * 24 * time.Hour
	}
	if key.Passphrase, err = o.secrets.given(); err != nil {
		return key, err
	}
	if o.publicKey != "" {
		data, err := cli.ReadSmall(o.publicKey)
		if err == nil {
			key.PublicKey, err = signer.ParsePublicKey(data)
		}
		if err != nil {
			return key, fmt.Errorf("public key %q: %w", o.publicKey, err)
		}
	}
	if o.issuer != "" {
		key.Issuer, err = signer.OpenIssuer(cmd.Context(), o.issuer, signer.OpenOptions{Certificates: o.issuerCert, Secret: o.secrets.askIssuer(cmd.Context())})
	}
	return key, err
}

// warnOfKey says what is special about keys that were just made.
func (a *app) warnOfKey(folder string, o signer.CreateOptions, c *x509.Certificate) {
	switch {
	case o.PublicKey != nil || len(o.Passphrase) > 0:
	case o.Profile == signer.Development:
		a.Log.Warn("these keys are for development: they are not encrypted", "folder", folder)
	default:
		a.Log.Warn("the key is not encrypted: no passphrase was given", "folder", folder)
	}
	a.warnOfHosts(c)
}

// warnOfHosts names those that cannot check what the certificate's key signs.
func (a *app) warnOfHosts(c *x509.Certificate) {
	for _, h := range signer.HostsFor(c) {
		if !h.Takes {
			a.Log.Warn("its signatures will be refused", "host", h.Name, "reason", h.Detail)
		}
	}
}

var errNoFolder = errors.New("DIR is empty")
