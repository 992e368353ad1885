// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/inventory"
)

func newKeyRotateCmd(a *app) *cobra.Command {
	var o issuerOptions
	var format string
	cmd := &cobra.Command{
		Use:   "rotate DIR",
		Short: "Replace a leaf by a new one with a new key",
		Long: `Replace the leaf in DIR by a new one with a new key, from the same issuer, with
the same name, profile and algorithm. The old one is kept beside it, and is as
good as before until it expires or is revoked: docs/keys.md says what to do when.
Print the fingerprint of the new key. All is done at once, or nothing.

The key is encrypted with the passphrase from --passphrase-fd or $TENON_PASSPHRASE,
if there is one. The issuer's is decrypted with that in $TENON_ISSUER_PASSPHRASE,
or else the same.`,
		Example: `  tenon key rotate release --issuer ca
  tenon key rotate keys`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.CheckFormat(format); err != nil {
				return err
			}
			if args[0] == "" {
				return cli.Usage(cmd, errNoFolder)
			}
			if o.issuer == "" {
				o.issuer = args[0]
			}
			return a.keyRotate(cmd, args[0], o, format == "json")
		},
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.issuer, "issuer", "", "folder of the CA that issued the leaf, or its key, as --key of 'tenon sign' (default: DIR)")
	f.IntVar(&o.days, "days", 0, "how long the new leaf is valid (default: as long as the old one, and no longer than the issuer)")
	f.StringVar(&format, "format", "text", "text or json")
	return cmd
}

// rotation is the JSON form of key rotate.
type rotation struct {
	New inventory.Certificate `json:"new"`
	Old inventory.Certificate `json:"old"`
}

func (a *app) keyRotate(cmd *cobra.Command, dir string, o issuerOptions, asJSON bool) error {
	options, err := o.options(cmd)
	if err != nil {
		return err
	}
	done, err := signer.Rotate(cmd.Context(), dir, signer.RotateOptions{
		Issuer: options.Issuer, Valid: options.Valid, PublicKey: options.PublicKey, Passphrase: options.Passphrase,
	})
	if err != nil {
		return err
	}
	now := time.Now()
	made, err := inventory.Look(dir, options.Passphrase, now)
	if err != nil {
		return err
	}
	old, err := inventory.Look(done.Kept, options.Passphrase, now)
	if err != nil {
		return err
	}
	out := rotation{made.Certificates[0], old.Certificates[0]}
	options.Profile = out.New.Profile
	a.warnOfKey(dir, options, done.New)
	if asJSON {
		return a.PrintJSON(out)
	}
	fmt.Fprintf(a.Stderr, "new        %s, until %s\n", cli.Printable(out.New.Files[0]), out.New.NotAfter.Format(time.RFC3339))
	fmt.Fprintf(a.Stderr, "old        %s, until %s\n", cli.Printable(out.Old.Files[0]), out.Old.NotAfter.Format(time.RFC3339))
	fmt.Fprintln(a.Stderr, "next       sign with the new key what still runs, then revoke the old certificate (docs/keys.md, Rotation)")
	_, err = fmt.Fprintln(a.Stdout, out.New.Fingerprint)
	return err
}
