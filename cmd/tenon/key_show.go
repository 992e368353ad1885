// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/inventory"
)

func newKeyShowCmd(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "show FILE|DIR",
		Short: "Show a certificate or a key, what is wrong with it, and who takes it",
		Long: `Show the first certificate of FILE, PEM or DER, or a private key and the
certificate beside it. Of DIR, a folder of 'tenon key create', it is the leaf's,
or else the CA's.`,
		Example: `  tenon key show keys
  tenon key show keys/ca.crt`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := cli.CheckFormat(format); err != nil {
				return err
			}
			found, err := inventory.Look(args[0], passphrase(), time.Now())
			if err != nil {
				return err
			}
			out := shownKey{Issuers: []inventory.Certificate{}, Hosts: []signer.Host{}}
			if len(found.Certificates) > 0 {
				out.Certificate, out.Issuers = &found.Certificates[0], found.Certificates[1:]
				out.Key, out.Hosts = out.Certificate.Key, signer.HostsFor(out.Certificate.X509)
			} else {
				out.Key = &found.Keys[0]
			}
			if format == "json" {
				return a.PrintJSON(out)
			}
			return a.showKey(out)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// shownKey is the JSON form of key show.
type shownKey struct {
	Certificate *inventory.Certificate  `json:"certificate"` // null: a key without one
	Issuers     []inventory.Certificate `json:"issuers"`     // that came with it
	Key         *inventory.Key          `json:"key"`         // null: it is not here
	Hosts       []signer.Host           `json:"hosts"`
}

func (a *app) showKey(s shownKey) error {
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	row := func(name string, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, cli.Printable(fmt.Sprintf(format, args...)))
	}
	var problems []string
	if c := s.Certificate; c != nil {
		row("subject", "%s", c.Subject)
		row("profile", "%s", c.Profile)
		row("issuer", "%s", c.Issuer)
		row("serial", "%s", c.Serial)
		row("valid", "%s to %s (%d days left)", c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), c.DaysLeft)
		row("algorithm", "%s, certified with %s", c.Algorithm, c.SignatureAlgorithm)
		row("fingerprint", "%s", c.Fingerprint)
		row("blacklist", "%s", c.TBS)
		row("files", "%s", strings.Join(c.Files, ", "))
		problems = c.Problems
	}
	switch k := s.Key; {
	case k == nil:
		row("key", "elsewhere")
	case s.Certificate == nil:
		row("key", "%s (%s, without a certificate)", k.File, keyState(k))
		row("algorithm", "%s", orDash(k.Algorithm))
		row("fingerprint", "%s", orDash(k.Fingerprint))
		problems = k.Problems
	default:
		row("key", "%s (%s)", k.File, keyState(k))
	}
	for _, h := range s.Hosts {
		verdict := "yes"
		if !h.Takes {
			verdict = "no"
		}
		if h.Detail != "" {
			verdict += ": " + h.Detail
		}
		row("taken by", "%s: %s", h.Name, verdict)
	}
	for _, p := range problems {
		row("problem", "%s", p)
	}
	return w.Flush()
}
