// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// ErrExists says that something is where Create would write.
var ErrExists = errors.New("exists")

// CreateOptions say what Create makes.
type CreateOptions struct {
	Name       string           // common name; development adds " CA" and " signing" to it
	Valid      time.Duration    // of each certificate, from now on
	Profile    string           // Development when empty
	Algorithm  string           // of the keys, one of Algorithms; DefaultAlgorithm when empty
	Issuer     *Key             // of an intermediate or release certificate, from OpenIssuer
	PublicKey  crypto.PublicKey // of an intermediate or release certificate, whose key is kept elsewhere
	Passphrase []byte           // encrypts the keys; empty: they are not encrypted
}

// Create makes the certificates of a profile, and their keys, in a new directory.
// A CA's are ca.key and ca.crt, a leaf's are signing.key, signing.crt and
// signing.pub; development makes both. A .crt holds the chain up to the root. Keys
// are PKCS#8, readable by their owner alone. What exists at dir is refused with
// ErrExists. When it fails, nothing is there.
func Create(dir string, o CreateOptions) error { return create(dir, o, time.Now()) }

func create(dir string, o CreateOptions, now time.Time) error {
	fail := func(err error) error { return fmt.Errorf("creating keys %q: %w", dir, err) }
	if o.Profile == "" {
		o.Profile = Development
	}
	if o.Algorithm == "" {
		o.Algorithm = DefaultAlgorithm
	}
	p, err := ParseProfile(o.Profile)
	if err != nil {
		return fail(err)
	}
	if err := o.check(p); err != nil {
		return fail(err)
	}
	// Early, as making keys takes a second; the rename decides.
	if _, err := os.Lstat(dir); err == nil {
		return fail(ErrExists)
	}
	files, err := o.files(p, now)
	if err != nil {
		return fail(err)
	}
	if err := writeDir(filepath.Clean(dir), files); err != nil {
		return fail(err)
	}
	return nil
}

func (o CreateOptions) check(p Profile) error {
	for _, r := range o.Name {
		if r < ' ' || r > '~' {
			return fmt.Errorf("name %q: only printable ASCII", o.Name)
		}
	}
	longest := 64 // X.520's limit of a common name
	if p.Name == Development {
		longest = 48
	}
	switch {
	case o.Name == "" || len(o.Name) > longest:
		return fmt.Errorf("name %q: needs 1 to %d characters", o.Name, longest)
	case o.Valid < time.Minute:
		return fmt.Errorf("validity of %s: less than a minute", o.Valid)
	case p.SelfSigned && (o.Issuer != nil || o.PublicKey != nil):
		return fmt.Errorf("profile %s: signs itself, with a key that is made here", p.Name)
	case !p.SelfSigned && o.Issuer == nil:
		return fmt.Errorf("profile %s: needs an issuer", p.Name)
	}
	return CheckAlgorithm(o.Algorithm)
}

func (o CreateOptions) files(p Profile, now time.Time) ([]file, error) {
	name := o.Name
	if p.Name == Development {
		name += " CA"
	}
	top, err := o.make(p, name, o.Issuer, now)
	if err != nil {
		return nil, err
	}
	if !p.CA {
		return encode("signing", top, o.Passphrase)
	}
	files, err := encode("ca", top, o.Passphrase)
	if err != nil || p.Name != Development {
		return files, err
	}
	leaf, err := o.make(p.leaf(), o.Name+" signing", top, now)
	if err != nil {
		return nil, err
	}
	more, err := encode("signing", leaf, o.Passphrase)
	return append(files, more...), err
}

// make makes a key, unless it is elsewhere, and its certificate. Without an
// issuer it signs itself.
func (o CreateOptions) make(p Profile, name string, issuer *Key, now time.Time) (*Key, error) {
	key := &Key{}
	pub := o.PublicKey
	if pub == nil {
		var err error
		if key.Signer, err = generate(o.Algorithm); err != nil {
			return nil, err
		}
		pub = key.Public()
	}
	if issuer == nil {
		issuer = &Key{Signer: key.Signer}
	}
	c, err := issue(request{Subject: pkix.Name{CommonName: name}, Profile: p, Valid: o.Valid, Key: pub}, issuer, now)
	if err != nil {
		return nil, err
	}
	key.Chain = append(key.Chain, c)
	key.Chain = append(key.Chain, issuer.Chain...)
	return key, nil
}
