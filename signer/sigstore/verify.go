// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// Verify says which of the keys at hand signed the digest of a manifest: the leaf
// of chain, which came with the bundle and is not judged, or one of keys. RSA
// (PKCS#1 v1.5, SHA-256) and ECDSA over P-256 (SHA-256) and P-384 (SHA-384) are
// known. The result's chain is chain where its leaf signed, else nil.
func Verify(data []byte, digest string, chain []*x509.Certificate, keys []crypto.PublicKey) (*signer.Signer, error) {
	sum, err := parseDigest(digest)
	if err != nil {
		return nil, err
	}
	envelope, hint, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	subject, err := parseStatement(envelope.GetPayload())
	if err != nil {
		return nil, fmt.Errorf("%w: statement: %w", ErrInvalid, err)
	}
	if subject != sum {
		return nil, fmt.Errorf("sigstore bundle: %w: sha256:%s, not %s", ErrDigest, subject, digest)
	}
	message, sig := preAuth(envelope.GetPayload()), envelope.GetSignatures()[0].GetSig()
	if len(chain) > 0 && verifies(chain[0].PublicKey, hint, message, sig) {
		return &signer.Signer{Key: chain[0].PublicKey, Chain: chain}, nil
	}
	for _, key := range keys {
		if verifies(key, hint, message, sig) {
			return &signer.Signer{Key: key}, nil
		}
	}
	return nil, fmt.Errorf("sigstore bundle: the signature was %w", ErrKey)
}

// verifies says whether key made the signature.
func verifies(key crypto.PublicKey, hint string, message, sig []byte) bool {
	if sum, err := base64.StdEncoding.Strict().DecodeString(hint); err == nil && len(sum) == 32 {
		if own, err := keyHint(key); err != nil || own != hint {
			return false
		}
	}
	if signer.CheckKey(key) != nil {
		return false
	}
	v, err := signature.LoadVerifier(key, Hash(key))
	return err == nil && v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)) == nil
}

// unmarshal is strict: it refuses what is unknown, occurs twice or follows.
func unmarshal(data []byte, into proto.Message) error {
	if err := (protojson.UnmarshalOptions{RecursionLimit: 32}).Unmarshal(data, into); err != nil {
		return fmt.Errorf("JSON: %s", strings.ReplaceAll(err.Error(), "\u00a0", " ")) // its spaces are random by intent
	}
	return nil
}

func parse(data []byte) (*protodsse.Envelope, string, error) {
	if len(data) > MaxSize {
		return nil, "", fmt.Errorf("larger than %d bytes", MaxSize)
	}
	if err := strictjson.CheckValues(data, MaxSize/64); err != nil {
		return nil, "", err
	}
	var b protobundle.Bundle
	if err := unmarshal(data, &b); err != nil {
		return nil, "", err
	}
	envelope, key := b.GetDsseEnvelope(), b.GetVerificationMaterial().GetPublicKey()
	switch {
	case b.GetMediaType() != MediaType:
		return nil, "", fmt.Errorf("media type %q is not %q", b.GetMediaType(), MediaType)
	case key == nil:
		return nil, "", errors.New("its verification material is not a public key")
	case envelope == nil:
		return nil, "", errors.New("no DSSE envelope")
	case envelope.GetPayloadType() != payloadType:
		return nil, "", fmt.Errorf("payload type %q is not %q", envelope.GetPayloadType(), payloadType)
	case len(envelope.GetSignatures()) != 1:
		return nil, "", fmt.Errorf("%d signatures, want 1", len(envelope.GetSignatures()))
	}
	return envelope, key.GetHint(), nil
}

// parseStatement returns the SHA-256 digest, in hex, of the statement's one
// subject. A subject's annotations are signed, but mean nothing here.
func parseStatement(payload []byte) (string, error) {
	var s structpb.Struct
	if err := unmarshal(payload, &s); err != nil {
		return "", err
	}
	if err := only(&s, "_type", "subject", "predicateType", "predicate"); err != nil {
		return "", err
	}
	f := s.GetFields()
	subjects := f["subject"].GetListValue().GetValues()
	switch {
	case f["_type"].GetStringValue() != statementType:
		return "", fmt.Errorf("type %q is not %q", f["_type"].GetStringValue(), statementType)
	case f["predicateType"].GetStringValue() != PredicateType:
		return "", fmt.Errorf("predicate type %q is not %q", f["predicateType"].GetStringValue(), PredicateType)
	case f["predicate"] != nil && f["predicate"].GetStructValue() == nil || len(f["predicate"].GetStructValue().GetFields()) > 0:
		return "", errors.New("the predicate is not an empty object")
	case len(subjects) != 1:
		return "", fmt.Errorf("%d subjects, want 1", len(subjects))
	}
	subject := subjects[0].GetStructValue()
	digest := subject.GetFields()["digest"].GetStructValue()
	if err := errors.Join(only(subject, "digest", "annotations"), only(digest, "sha256")); err != nil {
		return "", err
	}
	sum, err := parseDigest("sha256:" + digest.GetFields()["sha256"].GetStringValue())
	if err != nil {
		return "", fmt.Errorf("subject: %w", err)
	}
	return sum, nil
}

// only refuses other fields than these.
func only(s *structpb.Struct, names ...string) error {
	known := map[string]bool{}
	for _, n := range names {
		known[n] = true
	}
	for n := range s.GetFields() {
		if !known[n] {
			return fmt.Errorf("unknown field %q", n)
		}
	}
	return nil
}
