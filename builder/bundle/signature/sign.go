// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/request"
)

// Sign signs a bundle in every way that somebody will check: with one signature of each
// kind. Each becomes a referrer; the bundle's digest stays.
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

// Prepare returns the request for all signatures of a bundle.
func Prepare(ctx context.Context, b *bundle.Bundle) (*request.Request, error) {
	subject, err := signedSubject(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("signing bundle %q: %w", b.Manifest.Name, err)
	}
	return request.New(*subject)
}

// Attach gives a bundle the signatures that a request came back with.
// The certificates are those in chain, or, when it is nil, in the request.
func Attach(ctx context.Context, b *bundle.Bundle, r *request.Request, chain []*x509.Certificate) (*signer.Key, error) {
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
	initramfs, err := checkLayers(ctx, b)
	if err != nil {
		return nil, err
	}
	kernel, err := OpenKernel(ctx, b)
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	if kernel.Err != nil {
		return nil, kernel.Err
	}
	if b.Manifest.Initramfs.Sealed {
		config, err := b.ReadLayer(bundle.ConfigType)
		if err != nil {
			return nil, err
		}
		if err := seal.Check(kernel, config, b.Manifest.CommandLine, initramfs); err != nil {
			return nil, err
		}
	}
	return &request.Subject{Name: b.Manifest.Name, Digest: b.Digest.String(), Image: kernel.Digest, Statement: Statement(b)}, nil
}

// checkLayers reads all layers but the kernel: what is signed must be there.
func checkLayers(ctx context.Context, b *bundle.Bundle) (initramfs seal.Seal, err error) {
	hash := seal.NewHash()
	for _, mt := range b.Layers() {
		switch mt {
		case bundle.KernelType:
		case bundle.InitramfsType:
			err = b.CopyLayer(ctx, hash, mt)
		default:
			err = b.CheckLayer(ctx, mt)
		}
		if err != nil {
			return seal.Seal{}, err
		}
	}
	return hash.Seal(), nil
}

// attach makes a signature of each kind and attaches them.
func attach(ctx context.Context, b *bundle.Bundle, s *request.Subject, key *signer.Key) error {
	chain, err := cryptoutils.MarshalCertificatesToPEM(key.Chain)
	if err != nil {
		return err
	}
	var attachments []bundle.Attachment
	for _, k := range slices.Backward(Kinds) { // in the order in which a request lists them
		a := bundle.Attachment{Type: k.Type, MediaType: k.media}
		if a.Data, err = k.sign(key, s); err != nil {
			return err
		}
		if k.annotated {
			a.Annotations = map[string]string{bundle.CertificatesAnnotation: string(chain)}
		}
		attachments = append(attachments, a)
	}
	return b.Attach(ctx, attachments...)
}
