// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/signer"
)

func newKeyCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make keys to sign with, and revoke them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return usage(cmd, fmt.Errorf("no command given")) }}
	cmd.AddCommand(newKeyCreateCmd(a), newKeyRevokeCmd(a))
	for _, c := range cmd.Commands() {
		c.Args = usageArgs(c.Args)
	}
	return cmd
}

const maxDays = 100 * 365

func newKeyCreateCmd(a *app) *cobra.Command {
	var name string
	var days int
	cmd := &cobra.Command{
		Use:   "create DIR",
		Short: "Make a CA and a signing key for development",
		Long: `Make a certificate authority and a signing key that it certifies, for
development: RSA with 3072 bits and SHA-256, which stock kernels take. DIR must
not exist yet.

  ca.crt       to be trusted: 'tenon verify --cert', a kernel's keyring, UEFI's db
  ca.key       issues certificates, not encrypted: keep it away, or delete it
  signing.key  signs bundles: 'tenon sign --key'
  signing.crt  its certificate and the CA's
  signing.pub  its public key: 'cosign verify --key'`,
		Example: `  tenon key create keys --name "Example Inc."`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if days < 1 || days > maxDays {
				return &exitError{exitUsage, fmt.Errorf("--days %d: must be 1 to %d", days, maxDays)}
			}
			if args[0] == "" {
				return usage(cmd, errors.New("DIR is empty"))
			}
			if err := signer.Create(args[0], signer.CreateOptions{Name: name, Valid: time.Duration(days) * 24 * time.Hour}); err != nil {
				return err
			}
			a.log.Warn("these keys are for development: they are not encrypted", "folder", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "tenon development", "common name of the certificates, to which CA or signing is added")
	cmd.Flags().IntVar(&days, "days", 365, "how long the certificates are valid")
	return cmd
}
