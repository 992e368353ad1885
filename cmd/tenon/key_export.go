// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/inventory"
	"github.com/tenon-build/tenon/signer/pkcs7"
	"github.com/tenon-build/tenon/signer/uefi"
)

type keyExportOptions struct {
	keyOptions
	format, output, variable string
	append                   bool
}

// keyFormats are the forms of a certificate, and whether they are signed.
var keyFormats = map[string]bool{"der": false, "pem": false, "esl": false, "auth": true, "tbs": false, "tbs-p7": true}

func newKeyExportCmd(a *app) *cobra.Command {
	var o keyExportOptions
	cmd := &cobra.Command{
		Use:   "export FILE|DIR --format FORMAT -o OUT",
		Short: "Write a certificate as kernels and firmware take it",
		Long: `Write the first certificate of FILE, PEM or DER. Of DIR, a folder of 'tenon key
create', it is the leaf's, or else the CA's. OUT must not exist; - is stdout.

To trust it:
  der     for 'mokutil --import', and for the menus of firmware
  pem     for SYSTEM_TRUSTED_KEYS, when a kernel is built
  esl     a list for a UEFI variable, for firmware in setup mode
  auth    the same, signed with --key: KEK's for db, PK's for KEK and PK
To revoke it:
  esl, auth  with --variable dbx
  tbs        "tbs:" and the digest by which the kernel's blacklist names it
  tbs-p7     that, signed with --key, for a kernel with SYSTEM_BLACKLIST_AUTH_UPDATE:
             by a key that is built into it`,
		Example: `  tenon key export root/ca.crt --format der -o root.der
  tenon key export root/ca.crt --format auth --variable db --append --key kek.key -o db.auth
  tenon key export release --format tbs -o old.tbs
  tenon key export release --format tbs-p7 --key builtin.key -o old.tbs.p7s`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return cli.Usage(cmd, err)
			}
			return a.keyExport(cmd.Context(), args[0], o)
		},
	}
	o.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "der, pem, esl, auth, tbs or tbs-p7")
	f.StringVarP(&o.output, "output", "o", "", "file to write, or - for stdout")
	f.StringVar(&o.variable, "variable", "db", "UEFI variable of esl and auth: "+strings.Join(uefi.Variables(), ", "))
	f.BoolVar(&o.append, "append", false, "auth: add to what the variable holds, in place of replacing it")
	for _, name := range []string{"format", "output"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag that is not there
		}
	}
	return cmd
}

func (o *keyExportOptions) check(cmd *cobra.Command) error {
	signed, known := keyFormats[o.format]
	switch {
	case !known:
		return fmt.Errorf("--format %q is none of der, pem, esl, auth, tbs and tbs-p7", o.format)
	case signed && o.key == "":
		return fmt.Errorf("--format %s is signed: it needs a --key", o.format)
	case !signed && o.key != "":
		return fmt.Errorf("--format %s is not signed: it takes no --key", o.format)
	case o.cert != "" && o.key == "":
		return errors.New("--cert without --key")
	case !slices.Contains(uefi.Variables(), o.variable):
		return fmt.Errorf("--variable %q is none of %s", o.variable, strings.Join(uefi.Variables(), ", "))
	case cmd.Flags().Changed("variable") && o.format != "esl" && o.format != "auth":
		return fmt.Errorf("--format %s is for no --variable", o.format)
	case o.append && o.format != "auth":
		return fmt.Errorf("--format %s: only auth takes --append", o.format)
	case o.output == "":
		return errors.New("--output is empty")
	}
	return nil
}

func (a *app) keyExport(ctx context.Context, path string, o keyExportOptions) error {
	found, err := inventory.Look(path, nil, time.Now())
	if err != nil {
		return err
	}
	if len(found.Certificates) == 0 {
		return fmt.Errorf("exporting %q: %w", path, signer.ErrNoCertificate)
	}
	c := found.Certificates[0]
	var key *signer.Key
	if o.key != "" {
		if key, err = a.openKey(ctx, &o.keyOptions); err != nil {
			return fmt.Errorf("exporting %q: %w", path, err)
		}
	}
	data, err := o.encode(c.X509, key)
	if err != nil {
		return fmt.Errorf("exporting %q: %w", path, err)
	}
	if o.output == "-" {
		_, err = a.Stdout.Write(data)
	} else {
		err = writeNew(o.output, data)
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", o.output, err)
	}
	fmt.Fprintf(a.Stderr, "exported   %s, %s, until %s\n", cli.Printable(c.Subject), c.Profile, c.NotAfter.Format(time.DateOnly))
	enrolled := slices.Contains([]string{"der", "pem", "esl", "auth"}, o.format) && (o.variable == "db" || o.variable == "KEK")
	if enrolled && !c.X509.IsCA {
		a.Log.Warn("a leaf: who trusts it has to be told of the next one; its authority would stay", "issuer", c.Issuer)
	}
	return nil
}

func (o *keyExportOptions) encode(c *x509.Certificate, key *signer.Key) ([]byte, error) {
	switch o.format {
	case "der":
		return c.Raw, nil
	case "pem":
		return cryptoutils.MarshalCertificateToPEM(c)
	case "esl":
		return uefi.Lists(o.variable, c)
	case "auth":
		lists, err := uefi.Lists(o.variable, c)
		if err != nil {
			return nil, err
		}
		return uefi.Sign(key, uefi.Update{Variable: o.variable, Lists: lists, Time: time.Now(), Append: o.append})
	}
	tbs, err := signer.TBS(c)
	if err != nil || o.format == "tbs" {
		return []byte(tbs + "\n"), err
	}
	return pkcs7.SignDetached(key, []byte(tbs)) // what the kernel checks has no line end
}

// writeNew writes a file that must not exist, in one step.
func writeNew(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	err = os.Link(f.Name(), path) // unlike a rename, it replaces nothing
	if errors.Is(err, fs.ErrExist) {
		return fs.ErrExist
	}
	return err
}
