// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/trust"
)

// What the flags of trust lack; test with errors.Is.
var (
	ErrNoTrust    = errors.New("nothing says whom to trust: give one of --key, --cert and --policy")
	ErrPrivateKey = errors.New("it holds a private key, and a public one is wanted")
)

// TrustOptions say whom a verb trusts: exactly one of them is set.
type TrustOptions struct {
	Key, Cert, Policy string
	State             string // directory; empty: nothing is remembered
	AllowUnsigned     bool
	changed           func(flag string) bool
}

// Flags adds the flags.
func (o *TrustOptions) Flags(f *pflag.FlagSet) {
	f.StringVar(&o.Key, "key", "", "trust this public key (PEM file)")
	f.StringVar(&o.Cert, "cert", "", "trust this certificate and those that it issued (PEM file)")
	f.StringVar(&o.Policy, "policy", "", "trust whom this policy names (TOML file)")
	f.StringVar(&o.State, "state", "", "directory with what this host has seen: older versions and revocation lists are refused")
}

// Exclusive makes flags that contradict each other a usage error.
func (o *TrustOptions) Exclusive(cmd *cobra.Command) {
	names := []string{"key", "cert", "policy"}
	if cmd.Flags().Lookup("allow-unsigned") != nil {
		names = append(names, "allow-unsigned")
		cmd.MarkFlagsMutuallyExclusive("state", "allow-unsigned")
	}
	cmd.MarkFlagsMutuallyExclusive(names...)
	o.changed = cmd.Flags().Changed
}

// Default fills in what a host's configuration says, where the command line says nothing.
func (o *TrustOptions) Default(policy, state string) {
	if o.Key == "" && o.Cert == "" && o.Policy == "" && !o.AllowUnsigned {
		o.Policy = policy
	}
	if o.State == "" && !o.AllowUnsigned {
		o.State = state
	}
}

// Load reads what the flags name. Who asks only remembers nothing.
func (o *TrustOptions) Load(asks bool) (loader.Policy, error) {
	if o.State == "" && o.changed != nil && o.changed("state") { // a variable that is not set, perhaps
		return loader.Policy{}, Exit(ExitUsage, errors.New("--state is empty"))
	}
	p, err := o.LoadTrust()
	if o.State != "" {
		p.State = &loader.State{Dir: o.State, ReadOnly: asks}
	}
	return p, err
}

// LoadTrust is Load without what the host has seen.
func (o *TrustOptions) LoadTrust() (loader.Policy, error) {
	switch {
	case o.AllowUnsigned:
		return loader.Policy{AllowUnsigned: true}, nil
	case o.Policy != "":
		data, err := ReadSmall(o.Policy)
		if err != nil {
			return loader.Policy{}, fmt.Errorf("reading policy: %w", err)
		}
		p, err := trust.Parse(data, func(path string) ([]byte, error) {
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(o.Policy), path)
			}
			return ReadSmall(path)
		})
		if err != nil {
			return loader.Policy{}, fmt.Errorf("policy %s: %w", o.Policy, err)
		}
		return loader.Policy{Trust: p}, nil
	case o.Key == "" && o.Cert == "":
		return loader.Policy{}, ErrNoTrust
	}
	one := trust.Identity{Bundles: []string{"*"}}
	var err error
	if o.Key != "" {
		one.Name, err = o.Key, ReadPEM(o.Key, func(pem []byte) (err error) {
			one.Key, err = trust.ParseKey(pem)
			return err
		})
	} else {
		one.Name, err = o.Cert, ReadPEM(o.Cert, func(pem []byte) (err error) {
			one.Certificates, err = trust.ParseCertificates(pem)
			return err
		})
	}
	return loader.Policy{Trust: &trust.Policy{Identities: []trust.Identity{one}}}, err
}

// ReadPEM reads a file and has it parsed; a private key gets a word of its own.
func ReadPEM(path string, parse func([]byte) error) error {
	data, err := ReadSmall(path)
	if err != nil {
		return err
	}
	if err := parse(data); err != nil {
		if _, private := cryptoutils.UnmarshalPEMToPrivateKey(data, cryptoutils.SkipPassword); private == nil {
			err = ErrPrivateKey
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// maxSmall is the largest policy, key or certificate file that is read, in bytes.
const maxSmall = 1 << 20

// ReadSmall reads a regular file of at most 1 MiB.
func ReadSmall(path string) ([]byte, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(data) > maxSmall {
		err = &os.PathError{Op: "read", Path: path, Err: fmt.Errorf("larger than %d bytes", maxSmall)}
	}
	return data, err
}
