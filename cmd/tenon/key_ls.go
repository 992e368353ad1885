// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer/inventory"
)

func newKeyLsCmd(a *app) *cobra.Command {
	var within, format string
	cmd := &cobra.Command{
		Use:   "ls [DIR...]",
		Short: "List certificates and keys, and when they expire",
		Long: `List the certificates and private keys in folders and all below them, here
without DIR, as a calendar: what expires first comes first. PROFILE is what a
certificate's extensions make of it.`,
		Example: `  tenon key ls /etc/keys
  tenon key ls /etc/keys --within 90d
  tenon key ls --format json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.CheckFormat(format); err != nil {
				return err
			}
			now := time.Now()
			end, err := parseWithin(within, now)
			if err != nil {
				return cli.Usage(cmd, err)
			}
			if len(args) == 0 {
				args = []string{"."}
			}
			found, err := inventory.Scan(args, passphrase(), now)
			if err != nil {
				return err
			}
			if within != "" {
				found.Within(end)
			}
			if format == "json" {
				return a.PrintJSON(found)
			}
			return a.listKeys(found)
		},
	}
	cmd.Flags().StringVar(&within, "within", "", "only what expires within so many days, such as 90d, or has expired")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func parseWithin(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return now, nil
	}
	number, ok := strings.CutSuffix(text, "d")
	days, err := strconv.Atoi(number)
	if !ok || err != nil || days < 0 || days > maxDays {
		return now, fmt.Errorf("--within %q is not a number of days such as 90d", text)
	}
	return now.Add(time.Duration(days) * 24 * time.Hour), nil
}

func (a *app) listKeys(found *inventory.Inventory) error {
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "EXPIRES\tDAYS\tPROFILE\tALGORITHM\tKEY\tSUBJECT\tFILE")
	for _, c := range found.Certificates {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", c.NotAfter.Format(time.DateOnly), c.DaysLeft, c.Profile, c.Algorithm,
			keyState(c.Key), cli.Printable(c.Subject), cli.Printable(c.Files[0]))
	}
	for _, k := range found.Keys {
		fmt.Fprintf(w, "-\t-\tno certificate\t%s\t%s\t-\t%s\n", orDash(k.Algorithm), keyState(&k), cli.Printable(k.File))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, c := range found.Certificates {
		for _, p := range c.Problems {
			a.Log.Warn(cli.Escape(p), "file", c.Files[0])
		}
	}
	for _, k := range found.Keys {
		for _, p := range k.Problems {
			a.Log.Warn(cli.Escape(p), "file", k.File)
		}
	}
	for _, p := range found.Problems {
		a.Log.Warn(cli.Escape(p))
	}
	return nil
}

func keyState(k *inventory.Key) string {
	switch {
	case k == nil:
		return "elsewhere"
	case k.Encrypted:
		return "encrypted"
	}
	return "plain"
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
