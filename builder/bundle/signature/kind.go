// SPDX-License-Identifier: Apache-2.0

// Package signature is what proves who made a bundle: the kinds of signatures that are
// attached to one, made and checked.
//
// In: a bundle, and a key or the bundle's referrers. Out: referrers, one of each kind; or
// each signature with who made it, whom nobody has judged: that is what a policy is for.
// Refused: signatures that are not over this bundle, each with its reason, which hides no
// other.
package signature

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"os"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/request"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/statement"
)

// Kind is a kind of signature. A bundle is trusted when a signer that the policy
// trusts made one of each.
type Kind struct {
	Name      string
	Type      string // artifact type of the referrer
	Covers    string // for people
	OverImage bool   // it is over the image's own bytes: to check it takes the Kernel

	media       types.MediaType // of the referrer's layer
	annotated   bool            // the certificates are in an annotation
	sign        func(*signer.Key, *request.Subject) ([]byte, error)
	verifyBytes func(over *over, data []byte, chain []*x509.Certificate) (*signer.Signer, error)
}

// over is what the signatures of a bundle are over, and the bare keys that may have made one.
type over struct {
	bundle *bundle.Bundle
	kernel *Kernel // nil for kinds that are not over the image
	keys   []crypto.PublicKey
}

// Kinds are all kinds of signatures, those over the image last.
var Kinds = []Kind{
	{
		Name: "sigstore", Type: bundle.SigstoreType, media: bundle.SigstoreType, annotated: true,
		Covers: "the whole bundle by its digest; mortise and cosign check it",
		sign:   func(key *signer.Key, s *request.Subject) ([]byte, error) { return sigstore.Sign(key, s.Digest) },
		verifyBytes: func(o *over, data []byte, chain []*x509.Certificate) (*signer.Signer, error) {
			return sigstore.Verify(data, o.bundle.Digest.String(), chain, o.keys)
		},
	}, {
		Name: "statement", Type: bundle.StatementType, media: bundle.PKCS7Type,
		Covers: "the kernel image, its target, and that it is sealed or not; mortise.ko checks it",
		sign:   func(key *signer.Key, s *request.Subject) ([]byte, error) { return statement.Sign(key, s.Statement) },
		verifyBytes: func(o *over, data []byte, _ []*x509.Certificate) (*signer.Signer, error) {
			return statement.Verify(data, Statement(o.bundle))
		},
	}, {
		Name: "authenticode", Type: bundle.AuthenticodeType, media: bundle.PKCS7Type, OverImage: true,
		Covers: "the kernel image; the host's kernel checks it at kexec",
		sign:   func(key *signer.Key, s *request.Subject) ([]byte, error) { return authenticode.Sign(key, s.Image) },
		verifyBytes: func(o *over, data []byte, _ []*x509.Certificate) (*signer.Signer, error) {
			if o.kernel.Err != nil {
				return nil, o.kernel.Err
			}
			return authenticode.Verify(data, o.kernel.Digest)
		},
	},
}

// KindOf returns the kind of an artifact type, or nil where that is no signature's.
func KindOf(artifactType string) *Kind {
	for i := range Kinds {
		if Kinds[i].Type == artifactType {
			return &Kinds[i]
		}
	}
	return nil
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
