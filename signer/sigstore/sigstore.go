// SPDX-License-Identifier: Apache-2.0

// Package sigstore signs and verifies the digest of an OCI manifest as cosign
// does: a sigstore bundle v0.3 that holds a DSSE envelope with an in-toto
// statement.
//
// In: a digest and a key, or the bytes of such a bundle with the keys that may
// have made it. Out: those bytes, the same each time unless an ECDSA key in a token or
// another's store makes them, or who made them. A bundle
// carries no more than a hint at the key, so certificates travel beside it.
// Refused: other media types and versions, other statements than cosign's about
// one subject, more than one signature, fields that are unknown or occur twice,
// and more than 1 MiB. Entries of transparency logs and timestamps, which
// cosign may add, are not judged: verification is offline.
package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tenon-build/tenon/signer"
)

// MediaType is that of a bundle; as an OCI referrer it has this artifact type and
// one layer of this type.
const MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// MaxSize is the largest bundle that is read, in bytes.
const MaxSize = 1 << 20

const (
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	// PredicateType is that of the statement in a bundle.
	PredicateType = "https://sigstore.dev/cosign/sign/v1"
)

var (
	// ErrInvalid says that a bundle does not have the form that this package takes.
	ErrInvalid = errors.New("invalid sigstore bundle")
	// ErrDigest says that a bundle is about another manifest.
	ErrDigest = errors.New("the signature is of another manifest")
	// ErrKey says that none of the keys at hand made the signature.
	ErrKey = errors.New("made by none of the keys at hand, or not over this")
)

// Sign signs the digest of a manifest, "sha256:" with 64 digits of lower-case hex.
func Sign(key *signer.Key, digest string) ([]byte, error) {
	data, err := sign(key, digest)
	if err != nil {
		return nil, fmt.Errorf("signing %q: %w", digest, err)
	}
	return data, nil
}

func sign(key *signer.Key, digest string) ([]byte, error) {
	payload, err := payloadOf(digest)
	if err != nil {
		return nil, err
	}
	if err := signer.CheckKey(key.Public()); err != nil {
		return nil, err
	}
	hash := Hash(key.Public())
	pae := hash.New()
	pae.Write(preAuth(payload))
	sig, err := key.Sign(rand.Reader, pae.Sum(nil), hash)
	if err != nil {
		return nil, err
	}
	hint, err := keyHint(key.Public())
	if err != nil {
		return nil, err
	}
	raw, err := protojson.Marshal(&protobundle.Bundle{
		MediaType: MediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: hint}},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: payloadType, Signatures: []*protodsse.Signature{{Sig: sig}},
		}},
	})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil { // protojson's white space is random by intent
		return nil, err
	}
	if _, err := Verify(b.Bytes(), digest, nil, []crypto.PublicKey{key.Public()}); err != nil { // a faulty device
		return nil, fmt.Errorf("checking the new signature: %w", err)
	}
	return b.Bytes(), nil
}

// Hash is what a key signs with, as cosign has it: SHA-384 with P-384, otherwise
// SHA-256.
func Hash(key crypto.PublicKey) crypto.Hash {
	if ec, ok := key.(*ecdsa.PublicKey); ok && ec.Curve == elliptic.P384() {
		return crypto.SHA384
	}
	return crypto.SHA256
}

// ToBeSigned returns the bytes that Sign hashes and signs.
func ToBeSigned(digest string) ([]byte, error) {
	payload, err := payloadOf(digest)
	if err != nil {
		return nil, err
	}
	return preAuth(payload), nil
}

// payloadOf is cosign's statement about a manifest.
func payloadOf(digest string) ([]byte, error) {
	sum, err := parseDigest(digest)
	if err != nil {
		return nil, err
	}
	return []byte(`{"_type":"` + statementType + `","subject":[{"digest":{"sha256":"` + sum + `"}}],` +
		`"predicateType":"` + PredicateType + `","predicate":{}}`), nil
}

// parseDigest returns the hex digits of a digest.
func parseDigest(digest string) (string, error) {
	sum, ok := strings.CutPrefix(digest, "sha256:")
	if b, err := hex.DecodeString(sum); !ok || err != nil || len(b) != sha256.Size || strings.ToLower(sum) != sum {
		return "", fmt.Errorf("%q is not a sha256 digest", digest)
	}
	return sum, nil
}

// preAuth is DSSE's pre-authentication encoding, PAE, of a payload.
func preAuth(payload []byte) []byte {
	head := "DSSEv1 " + strconv.Itoa(len(payloadType)) + " " + payloadType + " " + strconv.Itoa(len(payload)) + " "
	return append([]byte(head), payload...)
}

// keyHint is what cosign and this package write about a key.
func keyHint(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}
