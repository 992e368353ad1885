// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/trust"
)

// TrustFlags are the flags that say whom a verb trusts.
type TrustFlags struct {
	loader.Trust
	changed func(flag string) bool
}

// Flags adds the flags.
func (o *TrustFlags) Flags(f *pflag.FlagSet) {
	f.StringVar(&o.Key, "key", "", "trust this public key (PEM file)")
	f.StringVar(&o.Cert, "cert", "", "trust this certificate and those that it issued (PEM file)")
	f.StringVar(&o.Policy, "policy", "", "trust whom this policy names (TOML file)")
	f.StringVar(&o.ExpectName, "expect-name", "", "the bundle has to have this name (default: of HOST/NAME:TAG what the policy says, or else the last part of NAME)")
	f.StringVar(&o.State, "state", "", "directory with what this host has seen: older versions and revocation lists are refused")
}

// Exclusive makes flags that contradict each other a usage error.
func (o *TrustFlags) Exclusive(cmd *cobra.Command) {
	names := []string{"key", "cert", "policy"}
	if cmd.Flags().Lookup("allow-unsigned") != nil {
		names = append(names, "allow-unsigned")
		cmd.MarkFlagsMutuallyExclusive("state", "allow-unsigned")
	}
	cmd.MarkFlagsMutuallyExclusive(names...)
	o.changed = cmd.Flags().Changed
}

// Default fills in what a host's configuration says, where the command line says nothing.
func (o *TrustFlags) Default(policy, state string) {
	if o.Key == "" && o.Cert == "" && o.Policy == "" && !o.AllowUnsigned {
		o.Policy = policy
	}
	if o.State == "" && !o.AllowUnsigned {
		o.State = state
	}
}

// Check refuses what the flags alone can tell.
func (o *TrustFlags) Check() error {
	for flag, value := range map[string]string{"state": o.State, "expect-name": o.ExpectName} {
		if value == "" && o.changed != nil && o.changed(flag) { // a variable that is not set, perhaps
			return Exit(ExitUsage, fmt.Errorf("--%s is empty", flag))
		}
	}
	if o.ExpectName != "" {
		if err := trust.CheckBundleName(o.ExpectName); err != nil {
			return Exit(ExitUsage, fmt.Errorf("--expect-name: %w", err))
		}
	}
	return nil
}

// NameHint is the next step after trust.ErrName.
const NameHint = "if it is the one that you want: --expect-name NAME, or a [[reference]] in the policy (docs/trust.md)"

// maxSmall is the largest configuration, list or certificate file that is read, in bytes.
const maxSmall = 1 << 20

// ReadSmall reads a regular file of at most 1 MiB.
func ReadSmall(path string) ([]byte, error) { return regular.Read(path, maxSmall) }
