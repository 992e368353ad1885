// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/signer"
)

// ErrRefused says that verification or policy refused a bundle.
var ErrRefused = errors.New("refused")

// ErrUnsigned says that a bundle carries no signature. It comes wrapped in
// ErrRefused.
var ErrUnsigned = errors.New("the bundle is not signed")

// Signature is a signature that is attached to a bundle.
type Signature struct {
	Kind     *Kind
	Referrer v1.Hash
	Data     []byte         // its bytes, in the form of its kind
	Signer   *signer.Signer // who made it, whom nobody has judged; nil when Err is set
	Err      error          // why it is none of this bundle
}

// Object names the signature in reports.
func (s *Signature) Object() string {
	return fmt.Sprintf("%s signature %s", s.Kind.Name, s.Referrer)
}

// Read checks all signatures that are attached to a bundle. kernel is the bundle's.
func Read(ctx context.Context, b *bundle.Bundle, kernel *Kernel) ([]Signature, error) {
	var out []Signature
	for i := range Kinds {
		some, err := Kinds[i].Read(ctx, b, kernel, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// Read checks the signatures of one kind that are attached to a bundle. kernel is the
// bundle's, and nil will do for kinds that are not OverImage. keys are bare keys that may
// have made one. An error is an accident: that a signature is none is its own.
func (k *Kind) Read(ctx context.Context, b *bundle.Bundle, kernel *Kernel, keys []crypto.PublicKey) ([]Signature, error) {
	var out []Signature
	for _, r := range b.Referrers() {
		if r.Type != k.Type {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sig := Signature{Kind: k, Referrer: r.Digest}
		if sig.Data, sig.Err = b.Content(r); sig.Err == nil {
			var chain []*x509.Certificate
			if chain, sig.Err = certificates(r); sig.Err == nil {
				sig.Signer, sig.Err = k.verifyBytes(&over{b, kernel, keys}, sig.Data, chain)
			}
		} else if !errors.Is(sig.Err, bundle.ErrInvalid) {
			return nil, sig.Err
		}
		out = append(out, sig)
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
