// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

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
	image  bool   // it is over the image's own bytes
	verify func(s *subject, data []byte, chain []*x509.Certificate) (*signer.Signer, error)
}

// Kinds are all kinds of signatures, those over the image last.
var Kinds = []Kind{
	{
		"sigstore", bundle.SigstoreType, "the whole bundle by its digest; mortise and cosign check it", false,
		func(s *subject, data []byte, chain []*x509.Certificate) (*signer.Signer, error) {
			return sigstore.Verify(data, s.bundle.Digest.String(), chain, s.keys)
		},
	}, {
		"statement", bundle.StatementType, "the kernel image, its target, and that it is sealed or not; mortise.ko checks it", false,
		func(s *subject, data []byte, _ []*x509.Certificate) (*signer.Signer, error) {
			return statement.Verify(data, s.statement)
		},
	}, {
		"authenticode", bundle.AuthenticodeType, "the kernel image; the host's kernel checks it at kexec", true,
		func(s *subject, data []byte, _ []*x509.Certificate) (*signer.Signer, error) {
			if s.kernel.Err != nil {
				return nil, s.kernel.Err
			}
			return authenticode.Verify(data, s.kernel.Digest)
		},
	},
}

// subject is what the signatures of a bundle are over.
type subject struct {
	bundle    *bundle.Bundle
	statement statement.Statement
	kernel    *Kernel // for those that are over the image
	keys      []crypto.PublicKey
}

func newSubject(b *bundle.Bundle, kernel *Kernel, keys []crypto.PublicKey) *subject {
	return &subject{b, Statement(b), kernel, keys}
}

// Kernel is the kernel of a bundle, whose digest was checked, in sealed memory.
type Kernel struct {
	*os.File
	Image  *authenticode.Image
	Digest [32]byte // that Authenticode signs
	Err    error    // why there is no Authenticode digest, and perhaps no Image
}

// OpenKernel reads the kernel of a bundle into sealed memory. The Kernel is the
// caller's to close.
func OpenKernel(ctx context.Context, b *bundle.Bundle) (*Kernel, error) {
	k := &Kernel{}
	var err error
	k.File, err = b.SealedLayer(ctx, bundle.KernelType, func(f *os.File, size int64) {
		if k.Image, k.Err = authenticode.Parse(f, size); k.Err == nil {
			k.Digest, k.Err = k.Image.Digest(ctx)
		}
	})
	if err != nil {
		return nil, err
	}
	return k, ctx.Err()
}

// Statement returns the statement about a bundle that is signed for mortise.ko.
func Statement(b *bundle.Bundle) statement.Statement {
	s := statement.Statement{Target: string(b.Manifest.Target), Sealed: b.Manifest.Initramfs.Sealed, Size: b.Size(bundle.KernelType)}
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
// nobody: anyone can have made them. kernel is the bundle's.
func Signatures(ctx context.Context, b *bundle.Bundle, kernel *Kernel) ([]Signature, error) {
	s := newSubject(b, kernel, nil)
	var out []Signature
	for _, kind := range Kinds {
		some, err := signaturesOf(ctx, kind, s)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// signaturesOf checks the signatures of one kind. An error is an accident: that
// a signature is none is its own.
func signaturesOf(ctx context.Context, kind Kind, s *subject) ([]Signature, error) {
	var out []Signature
	for _, r := range s.bundle.Referrers() {
		if r.Type != kind.Type {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sig := Signature{Kind: kind, Referrer: r.Digest}
		if sig.Data, sig.Err = s.bundle.Content(r); sig.Err == nil {
			var chain []*x509.Certificate
			if chain, sig.Err = certificates(r); sig.Err == nil {
				sig.Signer, sig.Err = kind.verify(s, sig.Data, chain)
			}
		} else if !errors.Is(sig.Err, bundle.ErrInvalid) {
			return nil, sig.Err
		}
		out = append(out, sig)
	}
	return out, nil
}

// statementsOf returns the good signatures of a bundle's statement, whoever made them.
func statementsOf(ctx context.Context, b *bundle.Bundle) ([][]byte, error) {
	i := slices.IndexFunc(Kinds, func(k Kind) bool { return k.Type == bundle.StatementType })
	signatures, err := signaturesOf(ctx, Kinds[i], newSubject(b, nil, nil))
	var out [][]byte
	for _, s := range signatures {
		if s.Err == nil {
			out = append(out, s.Data)
		}
	}
	return out, err
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
