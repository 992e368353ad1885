// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"fmt"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/statement"
)

// Sign signs a bundle in every way that somebody will check: Authenticode and
// the statement for the kernels that will take the image, a sigstore bundle for
// mortise and cosign. Each becomes a referrer; the bundle's digest stays.
func Sign(ctx context.Context, b *bundle.Bundle, key *signer.Key) error {
	attachments, err := sign(ctx, b, key)
	if err == nil {
		err = b.Attach(ctx, attachments...)
	}
	if err != nil {
		return fmt.Errorf("signing bundle %q: %w", b.Manifest.Name, err)
	}
	return nil
}

func sign(ctx context.Context, b *bundle.Bundle, key *signer.Key) ([]bundle.Attachment, error) {
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
	pe, err := authenticode.Sign(key, kernel.Digest)
	if err != nil {
		return nil, err
	}
	said, err := statement.Sign(key, loader.Statement(b))
	if err != nil {
		return nil, err
	}
	whole, err := sigstore.Sign(key, b.Digest.String())
	if err != nil {
		return nil, err
	}
	chain, err := cryptoutils.MarshalCertificatesToPEM(key.Chain)
	if err != nil {
		return nil, err
	}
	return []bundle.Attachment{
		{Type: bundle.AuthenticodeType, MediaType: bundle.PKCS7Type, Data: pe},
		{Type: bundle.StatementType, MediaType: bundle.PKCS7Type, Data: said},
		{Type: bundle.SigstoreType, MediaType: bundle.SigstoreType, Data: whole, Annotations: map[string]string{bundle.CertificatesAnnotation: string(chain)}},
	}, nil
}
