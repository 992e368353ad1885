// SPDX-License-Identifier: Apache-2.0

// Package bundle reads and writes bundles: an OCI image manifest with an
// artifact type, in an OCI image layout (a directory or an uncompressed tar
// archive of one) or a registry. Signatures, and whatever else people attach,
// are OCI referrers of it and travel with it.
//
// In and out: the manifest of package manifest as the config blob, the kernel,
// its configuration and System.map, the fidelity report, and the initramfs,
// as layers; referrers with their blobs. Refused: another
// version, unknown fields and layers, anything larger than its limit, and every
// byte that does not match its digest. Signatures are carried, not judged.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

// ArtifactType is the OCI artifact type of a bundle.
const ArtifactType = "application/vnd.tenon.bundle.v1"

// The media types of a bundle's blobs.
const (
	ManifestType  types.MediaType = "application/vnd.tenon.bundle.manifest.v1+json" // the config blob
	KernelType    types.MediaType = "application/vnd.tenon.kernel.v1"               // bzImage, unsigned, padded with zeros to 8 bytes
	InitramfsType types.MediaType = "application/vnd.tenon.initramfs.v1.cpio+zstd"
	ConfigType    types.MediaType = "application/vnd.tenon.kernel.config.v1"     // .config
	SystemMapType types.MediaType = "application/vnd.tenon.kernel.system-map.v1" // System.map
	FidelityType  types.MediaType = "application/vnd.tenon.fidelity.v1+json"     // what the initramfs holds of the image
)

// The artifact types of signatures. Each has one layer.
const (
	AuthenticodeType = "application/vnd.tenon.signature.authenticode.v1" // PKCS#7 over the PE image, as package authenticode makes it
	StatementType    = "application/vnd.tenon.signature.statement.v1"    // detached PKCS#7 over the statement of package statement
	SigstoreType     = "application/vnd.dev.sigstore.bundle.v0.3+json"   // sigstore bundle over the digest of the OCI manifest
)

// SignatureTypes are all of them. Package signature makes and checks them.
var SignatureTypes = []string{AuthenticodeType, StatementType, SigstoreType}

// CertificatesAnnotation is the annotation of a sigstore signature that holds the
// signer's certificates in PEM, leaf first: its format has no room for more than
// a hint at the key.
const CertificatesAnnotation = "vnd.tenon.signature.certificates"

// PKCS7Type is the media type of the layer of a PKCS#7 signature.
const PKCS7Type types.MediaType = "application/pkcs7-signature"

// limits are the largest sizes of blobs that are read, in bytes.
var limits = map[types.MediaType]int64{
	ManifestType:  manifest.MaxSize,
	KernelType:    limit.Kernel,
	InitramfsType: limit.Initramfs,
	ConfigType:    limit.KernelConfig,
	SystemMapType: limit.SystemMap,
	FidelityType:  limit.Report,
}

// ErrInvalid says that something is not a bundle, or a damaged one; test with
// errors.Is.
var ErrInvalid = errors.New("invalid bundle")

// ociManifest is v1.Manifest with just the fields that a bundle has.
type ociManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// descriptor has all fields of an OCI descriptor. What is raw is known to the
// specification, and kept for others to read.
type descriptor struct {
	MediaType    types.MediaType   `json:"mediaType"`
	Digest       v1.Hash           `json:"digest"`
	Size         int64             `json:"size"`
	URLs         json.RawMessage   `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Data         json.RawMessage   `json:"data,omitempty"`
	Platform     json.RawMessage   `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

type ociIndex struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Manifests     []descriptor      `json:"manifests"`
	Subject       json.RawMessage   `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func (m *ociManifest) check() error {
	if m.SchemaVersion != 2 || m.MediaType != types.OCIManifestSchema1 {
		return fmt.Errorf("manifest: schema version %d, media type %q: not an OCI manifest", m.SchemaVersion, m.MediaType)
	}
	if m.ArtifactType != ArtifactType {
		return fmt.Errorf("manifest: artifact type %q, this program reads %q", m.ArtifactType, ArtifactType)
	}
	if m.Config.MediaType != ManifestType {
		return fmt.Errorf("manifest: config of type %q", m.Config.MediaType)
	}
	seen := map[types.MediaType]bool{}
	for _, d := range append([]descriptor{m.Config}, m.Layers...) {
		limit, known := limits[d.MediaType]
		switch {
		case !known:
			return fmt.Errorf("manifest: unknown layer type %q", d.MediaType)
		case d.Size < 1 || d.Size > limit:
			return fmt.Errorf("manifest: %s has %d bytes, want 1 to %d", d.MediaType, d.Size, limit)
		case seen[d.MediaType]:
			return fmt.Errorf("manifest: two layers of type %q", d.MediaType)
		case d.URLs != nil || d.Data != nil || d.Platform != nil:
			return fmt.Errorf("manifest: %s has a field that bundles do not have: urls, data or platform", d.MediaType)
		case d.Digest.Algorithm != "sha256":
			return fmt.Errorf("manifest: %s: digest algorithm %q is not sha256", d.MediaType, d.Digest.Algorithm)
		}
		seen[d.MediaType] = true
	}
	for _, mt := range []types.MediaType{KernelType, ConfigType, SystemMapType, FidelityType} {
		if !seen[mt] {
			return fmt.Errorf("manifest: no layer of type %q", mt)
		}
	}
	return nil
}
