// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/request"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/statement"
)

// Sign signs a bundle in every way that somebody will check: Authenticode and
// the statement for the kernels that will take the image, a sigstore bundle for
// mortise and cosign. Each becomes a referrer; the bundle's digest stays.
func Sign(ctx context.Context, b *bundle.Bundle, key *signer.Key) error {
	subject, err := signedSubject(ctx, b)
	if err == nil {
		err = attach(ctx, b, subject, key)
	}
	if err != nil {
		return fmt.Errorf("signing bundle %q: %w", b.Manifest.Name, err)
	}
	return nil
}

// PrepareSigning returns the request for all signatures of a bundle.
func PrepareSigning(ctx context.Context, b *bundle.Bundle) (*request.Request, error) {
	subject, err := signedSubject(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("signing bundle %q: %w", b.Manifest.Name, err)
	}
	return request.New(*subject)
}

// AttachSignatures gives a bundle the signatures that a request came back with.
// The certificates are those in chain, or, when it is nil, in the request.
func AttachSignatures(ctx context.Context, b *bundle.Bundle, r *request.Request, chain []*x509.Certificate) (*signer.Key, error) {
	key, err := r.Key(chain)
	if err != nil {
		return nil, err
	}
	subject, err := signedSubject(ctx, b)
	if err == nil {
		err = r.Check(*subject)
	}
	if err == nil {
		err = attach(ctx, b, subject, key)
	}
	if err != nil {
		return nil, fmt.Errorf("signing bundle %q: %w", b.Manifest.Name, err)
	}
	return key, nil
}

// signedSubject reads what signatures of the bundle are over.
func signedSubject(ctx context.Context, b *bundle.Bundle) (*request.Subject, error) {
	for _, mt := range b.Layers() { // what is signed must be there
		if mt != bundle.KernelType {
			if err := b.CheckLayer(ctx, mt); err != nil {
				return nil, err
			}
		}
	}
	kernel, err := loader.OpenKernel(ctx, b)
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	if kernel.Err != nil {
		return nil, kernel.Err
	}
	return &request.Subject{Name: b.Manifest.Name, Digest: b.Digest.String(), Image: kernel.Digest, Statement: loader.Statement(b)}, nil
}

// attach makes the signatures and attaches them.
func attach(ctx context.Context, b *bundle.Bundle, s *request.Subject, key *signer.Key) error {
	pe, err := authenticode.Sign(key, s.Image)
	if err != nil {
		return err
	}
	said, err := statement.Sign(key, s.Statement)
	if err != nil {
		return err
	}
	whole, err := sigstore.Sign(key, s.Digest)
	if err != nil {
		return err
	}
	chain, err := cryptoutils.MarshalCertificatesToPEM(key.Chain)
	if err != nil {
		return err
	}
	return b.Attach(ctx,
		bundle.Attachment{Type: bundle.AuthenticodeType, MediaType: bundle.PKCS7Type, Data: pe},
		bundle.Attachment{Type: bundle.StatementType, MediaType: bundle.PKCS7Type, Data: said},
		bundle.Attachment{Type: bundle.SigstoreType, MediaType: bundle.SigstoreType, Data: whole, Annotations: map[string]string{bundle.CertificatesAnnotation: string(chain)}},
	)
}
