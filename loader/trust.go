// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/signer/ownership"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/trust"
)

// What Trust may lack; test with errors.Is.
var (
	ErrNoTrust    = errors.New("nothing says whom to trust: give one of --key, --cert and --policy")
	ErrPrivateKey = errors.New("it holds a private key, and a public one is wanted")
)

// Trust names the files that say whether a bundle is good: exactly one of Key, Cert,
// Policy and AllowUnsigned is set. Records of instances hold it, so that each start asks
// the same files again; the paths are absolute there.
type Trust struct {
	Key           string `json:"key,omitempty"`    // a public key, PEM
	Cert          string `json:"cert,omitempty"`   // certificates, PEM
	Policy        string `json:"policy,omitempty"` // TOML
	State         string `json:"state,omitempty"`  // directory with what the host has seen; empty: nothing is remembered
	AllowUnsigned bool   `json:"allowUnsigned,omitempty"`
	Guarded       bool   `json:"-"`                    // refuse files that others than root and this user can change: what they say is run as root
	ExpectName    string `json:"expectName,omitempty"` // that the bundle has to have; empty: see trust.Policy.CheckName
}

// Absolute makes the paths absolute.
func (t *Trust) Absolute() error {
	for _, path := range []*string{&t.Key, &t.Cert, &t.Policy, &t.State} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

// Load reads what the files say. With readOnly, the policy remembers nothing.
func (t *Trust) Load(readOnly bool) (Policy, error) {
	p, err := t.load()
	p.ExpectName = t.ExpectName
	if t.State != "" {
		p.State = &State{Dir: t.State, ReadOnly: readOnly}
	}
	return p, err
}

func (t *Trust) load() (Policy, error) {
	switch {
	case t.AllowUnsigned:
		return Policy{AllowUnsigned: true}, nil
	case t.Policy != "":
		p, err := t.readPolicy()
		return Policy{Trust: p}, err
	case t.Key == "" && t.Cert == "":
		return Policy{}, ErrNoTrust
	}
	one := trust.Identity{Bundles: []string{"*"}}
	var err error
	if t.Key != "" {
		one.Name, err = t.Key, t.readPEM(t.Key, func(pem []byte) (err error) {
			one.Key, err = trust.ParseKey(pem)
			return err
		})
	} else {
		one.Name, err = t.Cert, t.readPEM(t.Cert, func(pem []byte) (err error) {
			one.Certificates, err = trust.ParseCertificates(pem)
			return err
		})
	}
	return Policy{Trust: &trust.Policy{Identities: []trust.Identity{one}}}, err
}

// readPolicy reads the policy. The paths in it are relative to its directory.
func (t *Trust) readPolicy() (*trust.Policy, error) {
	data, err := t.read(t.Policy)
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	p, err := trust.Parse(data, func(named string) ([]byte, error) {
		if !filepath.IsAbs(named) {
			named = filepath.Join(filepath.Dir(t.Policy), named)
		}
		return t.read(named)
	})
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", t.Policy, err)
	}
	return p, nil
}

// read reads one of the files. Who can change it is looked at first: what nobody else can change
// stays as it was when it is read.
func (t *Trust) read(path string) ([]byte, error) {
	if err := t.guard(path); err != nil {
		return nil, err
	}
	return regular.Read(path, limit.TrustFile)
}

func (t *Trust) readPEM(path string, parse func([]byte) error) error {
	if err := t.guard(path); err != nil {
		return err
	}
	return ReadPEM(path, parse)
}

func (t *Trust) guard(path string) error {
	if !t.Guarded {
		return nil
	}
	err := ownership.Check(path)
	if errors.Is(err, ownership.ErrUnsafe) {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return err
}

// ReadPEM reads a file and has it parsed; a private key gets a word of its own.
func ReadPEM(path string, parse func([]byte) error) error {
	data, err := regular.Read(path, limit.TrustFile)
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
