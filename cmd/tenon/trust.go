// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/builder/bundle/regular"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer/trust"
)

var (
	errNoTrust    = errors.New("nothing says whom to trust: give one of --key, --cert and --policy")
	errPrivateKey = errors.New("it holds a private key, and a public one is wanted")
)

// trustOptions say whom a verb trusts: exactly one of them is set.
type trustOptions struct {
	key, cert, policy string
	state             string // directory
	allowUnsigned     bool
}

func (o *trustOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.key, "key", "", "trust this public key (PEM file)")
	f.StringVar(&o.cert, "cert", "", "trust this certificate and those that it issued (PEM file)")
	f.StringVar(&o.policy, "policy", "", "trust whom this policy names (TOML file)")
	f.StringVar(&o.state, "state", "", "directory with what this host has seen: older versions and revocation lists are refused")
}

// exclusive makes flags that contradict each other a usage error.
func (o *trustOptions) exclusive(cmd *cobra.Command) {
	names := []string{"key", "cert", "policy"}
	if cmd.Flags().Lookup("allow-unsigned") != nil {
		names = append(names, "allow-unsigned")
		cmd.MarkFlagsMutuallyExclusive("state", "allow-unsigned")
	}
	cmd.MarkFlagsMutuallyExclusive(names...)
}

// load reads what the flags name. Who asks only remembers nothing.
func (o *trustOptions) load(asks bool) (loader.Policy, error) {
	p, err := o.loadTrust()
	if o.state != "" {
		p.State = &loader.State{Dir: o.state, ReadOnly: asks}
	}
	return p, err
}

func (o *trustOptions) loadTrust() (loader.Policy, error) {
	switch {
	case o.allowUnsigned:
		return loader.Policy{AllowUnsigned: true}, nil
	case o.policy != "":
		data, err := readSmall(o.policy)
		if err != nil {
			return loader.Policy{}, fmt.Errorf("reading policy: %w", err)
		}
		p, err := trust.Parse(data, func(path string) ([]byte, error) {
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(o.policy), path)
			}
			return readSmall(path)
		})
		if err != nil {
			return loader.Policy{}, fmt.Errorf("policy %s: %w", o.policy, err)
		}
		return loader.Policy{Trust: p}, nil
	case o.key == "" && o.cert == "":
		return loader.Policy{}, errNoTrust
	}
	one := trust.Identity{Bundles: []string{"*"}}
	var err error
	if o.key != "" {
		one.Name, err = o.key, readPEM(o.key, func(pem []byte) (err error) {
			one.Key, err = trust.ParseKey(pem)
			return err
		})
	} else {
		one.Name, err = o.cert, readPEM(o.cert, func(pem []byte) (err error) {
			one.Certificates, err = trust.ParseCertificates(pem)
			return err
		})
	}
	return loader.Policy{Trust: &trust.Policy{Identities: []trust.Identity{one}}}, err
}

func readPEM(path string, parse func([]byte) error) error {
	data, err := readSmall(path)
	if err != nil {
		return err
	}
	if err := parse(data); err != nil {
		if _, private := cryptoutils.UnmarshalPEMToPrivateKey(data, cryptoutils.SkipPassword); private == nil {
			err = errPrivateKey
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// maxSmall is the largest policy, key or certificate file that is read, in bytes.
const maxSmall = 1 << 20

func readSmall(path string) ([]byte, error) {
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
