// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/flock"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/trust"
)

type revokeOptions struct {
	key          keyOptions
	list, reason string
	days         int
}

func newKeyRevokeCmd(a *app) *cobra.Command {
	var o revokeOptions
	cmd := &cobra.Command{
		Use:   "revoke [CERT|KEY.pub|sha256:DIGEST]... --list FILE --key KEY --reason TEXT",
		Short: "Revoke certificates, keys and bundles",
		Long: `Make a signed list of what is trusted no more, or the next one of a list that
this key, or one with the same subject of the same issuer, signed. A policy names
the list, who signs it, and how old it may be: without anything to revoke, the
list is issued anew.

  CERT           a certificate, the first in a PEM file, and what it issued
  KEY.pub        a public key, whatever certificate it has
  sha256:DIGEST  a bundle

Of each certificate, the line for a kernel's blacklist keyring is printed.`,
		Example: `  tenon key revoke keys/signing.crt --list revoked --key security.key --reason "laptop stolen"
  tenon key revoke --list revoked --key security.key`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.days < 1 || o.days > maxDays {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("--days %d: must be 1 to %d", o.days, maxDays))
			}
			if (o.reason == "") != (len(args) == 0) {
				return cli.Usage(cmd, errors.New("--reason says why something is revoked: it needs that, and that needs it"))
			}
			return a.revoke(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	o.key.flags(f)
	f.StringVar(&o.list, "list", "", "the list: made, or replaced by the next one")
	f.StringVar(&o.reason, "reason", "", "why, for people")
	f.IntVar(&o.days, "days", 30, "how long the list may be used")
	for _, name := range []string{"key", "list"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag that is not there
		}
	}
	return cmd
}

func (a *app) revoke(ctx context.Context, args []string, o revokeOptions) error {
	var entries []trust.Revoked
	var lines []string
	for _, arg := range args {
		e, cert, err := toRevoke(arg)
		if err != nil {
			return err
		}
		e.Reason = o.reason
		entries = append(entries, e)
		if cert != nil {
			line, err := signer.TBS(cert)
			if err != nil {
				return fmt.Errorf("%s: %w", arg, err)
			}
			lines = append(lines, line)
		}
	}
	key, err := signer.Open(ctx, o.key.key, signer.OpenOptions{Certificates: o.key.cert, Secret: o.key.secrets.ask(ctx)})
	if err != nil {
		return err
	}
	list, err := a.nextList(ctx, key, o, entries)
	if err != nil {
		return fmt.Errorf("%s: %w", o.list, err)
	}
	for _, e := range entries {
		fmt.Fprintf(a.Stderr, "revoked    %s %s\n", e.Kind, e.Digest)
	}
	fmt.Fprintf(a.Stderr, "list       number %d with %d entries, to be issued anew before %s\n", list.Number, len(list.Entries), list.Expires.Format(time.RFC3339))
	for _, line := range lines {
		fmt.Fprintln(a.Stdout, line)
	}
	return nil
}

// nextList replaces the list by the next one, while nobody else does.
func (a *app) nextList(ctx context.Context, key *signer.Key, o revokeOptions, entries []trust.Revoked) (*revocation.List, error) {
	path, err := filepath.EvalSymlinks(o.list)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err = os.Lstat(o.list); err == nil {
			return nil, errors.New("a link that leads nowhere")
		}
		path, err = o.list, nil
	}
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := flock.Lock(ctx, dir); err != nil {
		return nil, err
	}
	now := time.Now()
	old, by, err := readList(path, key, now)
	if err != nil {
		return nil, err
	}
	list := old.Next(now, time.Duration(o.days)*24*time.Hour, entries...)
	data, err := revocation.Sign(key, list)
	if err != nil {
		return nil, err
	}
	if err := regular.Replace(path, func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
		return nil, err
	}
	if old != nil {
		fmt.Fprintf(a.Stderr, "before     number %d with %d entries, signed by %s\n", old.Number, len(old.Entries), cli.Printable(by.String()))
	}
	return list, dir.Sync()
}

// toRevoke returns what an argument names, and the certificate if it is one.
func toRevoke(arg string) (trust.Revoked, *x509.Certificate, error) {
	if strings.HasPrefix(arg, "sha256:") {
		if _, err := v1.NewHash(arg); err != nil {
			return trust.Revoked{}, nil, cli.Exit(cli.ExitUsage, fmt.Errorf("%q is not a sha256 digest", arg))
		}
		return trust.OfBundle(arg), nil, nil
	}
	var e trust.Revoked
	var cert *x509.Certificate
	return e, cert, loader.ReadPEM(arg, func(pem []byte) error {
		key, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
		if err == nil {
			e = trust.OfKey(key)
			return nil
		}
		certs, err := signer.ParseCertificates(pem)
		if err == nil {
			cert, e = certs[0], trust.OfCertificate(certs[0])
		}
		return err
	})
}

// readList reads the list that is to be replaced, nil where there is none, and
// says who signed it. Whoever could give us another would decide what is not
// revoked: it has to be signed by this key or, whenever that was, by one that a
// rotation replaced, which has the same subject and issuer.
func readList(path string, key *signer.Key, now time.Time) (*revocation.List, *signer.Signer, error) {
	data, err := cli.ReadSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list, by, err := revocation.Parse(data)
	if err != nil {
		return nil, nil, err
	}
	if signer.Fingerprint(by.Key) == signer.Fingerprint(key.Public()) {
		return list, by, nil
	}
	if len(key.Chain) < 2 || len(by.Chain) == 0 || !bytes.Equal(by.Chain[0].RawSubject, key.Chain[0].RawSubject) || by.Chain[0].CheckSignatureFrom(key.Chain[1]) != nil {
		return nil, nil, fmt.Errorf("signed by %s, and not by this key or one with the same subject of the same issuer", cli.Printable(by.String()))
	}
	issuer := trust.Identity{Certificates: key.Chain[1:2], Grace: math.MaxInt64}
	return list, by, issuer.CheckSigner(by, list.Entries, now)
}
