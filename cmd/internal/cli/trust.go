// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer/regular"
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
	if o.State == "" && o.changed != nil && o.changed("state") { // a variable that is not set, perhaps
		return Exit(ExitUsage, errors.New("--state is empty"))
	}
	return nil
}

// maxSmall is the largest configuration, list or certificate file that is read, in bytes.
const maxSmall = 1 << 20

// ReadSmall reads a regular file of at most 1 MiB.
func ReadSmall(path string) ([]byte, error) { return regular.Read(path, maxSmall) }
