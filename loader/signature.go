// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/statement"
)

// Kind is a kind of signature. A bundle is trusted when a signer that the policy
// trusts made one of each.
type Kind struct {
	Name   string
	Type   string // artifact type of the referrer
	Covers string // for people
	verify func(s *subject, data []byte, chain []*x509.Certificate) (*signer.Signer, error)
}

// Kinds are all kinds of signatures.
var Kinds = []Kind{
	{
		"authenticode", bundle.AuthenticodeType, "the kernel image; the host's kernel checks it at kexec",
		func(s *subject, data []byte, _ []*x509.Certificate) (*signer.Signer, error) {
			if s.imageErr != nil {
				return nil, s.imageErr
			}
			return authenticode.Verify(data, s.image)
		},
	}, {
		"statement", bundle.StatementType, "the kernel image, its target, and that it is sealed or not; mortise.ko checks it",
		func(s *subject, data []byte, _ []*x509.Certificate) (*signer.Signer, error) {
			return statement.Verify(data, s.statement)
		},
	}, {
		"sigstore", bundle.SigstoreType, "the whole bundle by its digest; mortise and cosign check it",
		func(s *subject, data []byte, chain []*x509.Certificate) (*signer.Signer, error) {
			return sigstore.Verify(data, s.digest, chain, s.keys)
		},
	},
}

// subject is what the signatures of a bundle are over.
type subject struct {
	digest    string // of the bundle
	statement statement.Statement
	image     [32]byte // Authenticode digest of the kernel
	imageErr  error    // why there is none
	keys      []crypto.PublicKey
}

// newSubject computes what the signatures are over. kernel is the kernel layer,
// whose digest was checked.
func newSubject(ctx context.Context, b *bundle.Bundle, kernel *os.File, keys []crypto.PublicKey) (*subject, error) {
	s := &subject{digest: b.Digest.String(), statement: Statement(b), keys: keys}
	image, err := authenticode.Parse(kernel, b.Size(bundle.KernelType))
	if err == nil {
		s.image, err = image.Digest(ctx)
	}
	s.imageErr = err
	return s, ctx.Err()
}

// Statement returns the statement about a bundle that is signed for mortise.ko.
func Statement(b *bundle.Bundle) statement.Statement {
	s := statement.Statement{Target: b.Manifest.Target, Sealed: b.Manifest.Initramfs.Sealed, Size: b.Size(bundle.KernelType)}
	_, _ = hex.Decode(s.Digest[:], []byte(b.LayerDigest(bundle.KernelType).Hex)) // a digest is nothing else
	return s
}

// Signature is a signature that is attached to a bundle.
type Signature struct {
	Kind     Kind
	Referrer v1.Hash
	Data     []byte         // its bytes, in the form of its kind
	Signer   *signer.Signer // who made it, whom nobody has judged; nil when Err is set
	Err      error          // why it is none of this bundle
}

// Signatures checks the signatures that are attached to a bundle, but trusts
// nobody: anyone can have made them. kernel is the kernel layer, whose digest was
// checked; keys are public keys that may have signed without a certificate.
func Signatures(ctx context.Context, b *bundle.Bundle, kernel *os.File, keys ...crypto.PublicKey) ([]Signature, error) {
	s, err := newSubject(ctx, b, kernel, keys)
	if err != nil {
		return nil, err
	}
	var out []Signature
	for _, kind := range Kinds {
		for _, r := range b.Referrers() {
			if r.Type != kind.Type {
				continue
			}
			data, err := b.Content(r)
			if err != nil {
				return nil, err
			}
			sig := Signature{Kind: kind, Referrer: r.Digest, Data: data}
			chain, err := certificates(r)
			if err == nil {
				sig.Signer, err = kind.verify(s, data, chain)
			}
			sig.Err = err
			out = append(out, sig)
		}
	}
	return out, nil
}

// certificates reads the certificates that a signature without room for them has
// beside it.
func certificates(r bundle.Referrer) ([]*x509.Certificate, error) {
	pem := r.Annotations[bundle.CertificatesAnnotation]
	if pem == "" {
		return nil, nil
	}
	chain, err := signer.ParseCertificates([]byte(pem))
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", bundle.CertificatesAnnotation, err)
	}
	return chain, nil
}
