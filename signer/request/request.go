// SPDX-License-Identifier: Apache-2.0

// Package request is signing in two phases: what is to be signed of a bundle is
// written down, signed wherever the key is, and the signatures come back.
//
// In: a Subject, or a request as JSON. Out: the request, with or without
// signatures, and a Key that answers with those signatures, so that whoever signs
// with it makes what the real key would have made. Refused: requests whose bytes
// to be signed are not exactly those of the subject that they state, unknown
// fields, other versions, and more than 1 MiB.
//
// A request is one JSON object. It states the subject in words, then lists what is
// to be signed: "data" in base64, the bytes that are hashed and signed, and
// "digest", their SHA-256, for keys that take only that. "signature", in base64,
// is PKCS#1 v1.5 for RSA and the DER of ECDSA's two numbers (RFC 3279, 2.2.3).
// ECDSA keys with P-384 are refused: they sign a bundle with SHA-384 (cosign).
// "certificates" are the signer's in PEM, the leaf first.
package request

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/statement"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// MaxSize is the largest request, in bytes.
const MaxSize = 1 << 20

const version = 1

// ErrInvalid says that data is no request, or does not say what it is about.
var ErrInvalid = errors.New("invalid request")

// ErrSubject says that a request is about another bundle.
var ErrSubject = errors.New("the request is about another bundle")

// ErrUnanswered says that a request lacks a signature.
var ErrUnanswered = errors.New("not signed")

// ErrHash says that a key does not sign with SHA-256.
var ErrHash = errors.New("a request has SHA-256 digests, and ECDSA with P-384 signs a bundle with SHA-384: sign it in one step")

// Subject is what the signatures of a bundle are over.
type Subject struct {
	Name      string // of the bundle
	Digest    string // of its manifest, "sha256:" and hex
	Image     [32]byte
	Statement statement.Statement
}

// Request is the form on disk.
type Request struct {
	Version      int    `json:"version"`
	Bundle       Bundle `json:"bundle"`
	Kernel       Kernel `json:"kernel"`
	Items        []Item `json:"signatures"`
	Certificates string `json:"certificates,omitempty"`
}

// Bundle names the bundle. What is signed is the digest, and the name with it: to
// see that they belong together takes the bundle.
type Bundle struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// Kernel is what the statement says, and the Authenticode digest.
type Kernel struct {
	Target       string `json:"target"`
	Sealed       bool   `json:"sealed"`
	Size         int64  `json:"size"`         // in bytes
	Digest       string `json:"digest"`       // "sha256:" and hex
	Authenticode string `json:"authenticode"` // likewise
}

// Item is one signature to be made.
type Item struct {
	Kind      string `json:"kind"` // authenticode, statement, sigstore
	Over      string `json:"over"` // for people
	Hash      string `json:"hash"` // sha256
	Digest    string `json:"digest"`
	Data      []byte `json:"data"`
	Signature []byte `json:"signature,omitempty"`
}

// New makes the request for the signatures of a bundle.
func New(s Subject) (*Request, error) {
	image, err := authenticode.ToBeSigned(s.Image)
	if err != nil {
		return nil, err
	}
	said, err := s.Statement.Marshal()
	if err != nil {
		return nil, err
	}
	whole, err := sigstore.ToBeSigned(s.Digest)
	if err != nil {
		return nil, err
	}
	seal := "detached"
	if s.Statement.Sealed {
		seal = "sealed"
	}
	r := &Request{
		Version: version,
		Bundle:  Bundle{s.Name, s.Digest},
		Kernel:  Kernel{s.Statement.Target, s.Statement.Sealed, s.Statement.Size, digest(s.Statement.Digest), digest(s.Image)},
		Items: []Item{
			{Kind: "authenticode", Over: "the kernel image with the Authenticode digest " + digest(s.Image), Data: image},
			{Kind: "statement", Over: fmt.Sprintf("the %s kernel %s of %d bytes for %s", seal, digest(s.Statement.Digest), s.Statement.Size, s.Statement.Target), Data: said},
			{Kind: "sigstore", Over: "the bundle " + s.Digest, Data: whole},
		},
	}
	for i := range r.Items {
		r.Items[i].Hash, r.Items[i].Digest = "sha256", hex.EncodeToString(r.Items[i].sum())
	}
	return r, nil
}

func (i *Item) sum() []byte {
	sum := sha256.Sum256(i.Data)
	return sum[:]
}

func digest(sum [32]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }

// Parse reads a request. What it would have signed is made anew from what it
// states, so that a signer who has read it is not given other bytes to sign.
func Parse(data []byte) (*Request, error) {
	r, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return r, nil
}

func parse(data []byte) (*Request, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("larger than %d bytes", MaxSize)
	}
	if err := strictjson.CheckValues(data, MaxSize/64); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	r := &Request{}
	if err := d.Decode(r); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	if r.Version != version {
		return nil, fmt.Errorf("version %d: this program reads version %d", r.Version, version)
	}
	if err := r.checkForm(data); err != nil {
		return nil, err
	}
	subject, err := r.subject()
	if err != nil {
		return nil, err
	}
	want, err := New(*subject)
	if err != nil {
		return nil, err
	}
	return r, r.checkItems(want)
}

// checkForm says whether data is r and nothing else: encoding/json takes a field's
// name in any case and the last of several, where a reader may see the first.
func (r *Request) checkForm(data []byte) error {
	own, err := r.Encode()
	if err != nil {
		return err
	}
	var a, b bytes.Buffer
	if err := errors.Join(json.Compact(&a, data), json.Compact(&b, own)); err != nil {
		return err
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		return errors.New("a field is there twice, in another order, or spelled in another way than this program writes it")
	}
	return nil
}

// checkItems says whether r asks for what want asks for.
func (r *Request) checkItems(want *Request) error {
	if len(r.Items) != len(want.Items) {
		return fmt.Errorf("%d signatures, want %d", len(r.Items), len(want.Items))
	}
	for i, item := range want.Items {
		item.Signature = r.Items[i].Signature
		a, errA := json.Marshal(item)
		b, errB := json.Marshal(r.Items[i])
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			return fmt.Errorf("signatures[%d], %.20q: it does not ask for what bundle and kernel state", i, r.Items[i].Kind)
		}
	}
	return nil
}

func (r *Request) subject() (*Subject, error) {
	s := &Subject{Name: r.Bundle.Name, Digest: r.Bundle.Digest}
	s.Statement = statement.Statement{Target: r.Kernel.Target, Sealed: r.Kernel.Sealed, Size: r.Kernel.Size}
	for _, d := range []struct {
		name, text string
		into       *[32]byte
	}{{"digest", r.Kernel.Digest, &s.Statement.Digest}, {"authenticode", r.Kernel.Authenticode, &s.Image}} {
		if b, err := hex.DecodeString(d.text[min(len(d.text), len("sha256:")):]); err == nil && len(b) == len(d.into) {
			*d.into = [32]byte(b)
		}
		if digest(*d.into) != d.text {
			return nil, fmt.Errorf("kernel.%s: %.100q is not a sha256 digest", d.name, d.text)
		}
	}
	return s, nil
}

// Encode returns the request as JSON.
func (r *Request) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(r)
	return b.Bytes(), err
}

// Sign answers the request with the key.
func (r *Request) Sign(ctx context.Context, key *signer.Key) error {
	if sigstore.Hash(key.Public()) != crypto.SHA256 {
		return ErrHash
	}
	for i := range r.Items {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if r.Items[i].Signature, err = key.Sign(rand.Reader, r.Items[i].sum(), crypto.SHA256); err != nil {
			return fmt.Errorf("signing %s: %w", r.Items[i].Kind, err)
		}
	}
	chain, err := cryptoutils.MarshalCertificatesToPEM(key.Chain)
	r.Certificates = string(chain)
	return err
}

// Key returns a key that signs what the request was answered for, and nothing
// else. chain is the signer's; when it is nil, it is the answer's own. Whether the
// signatures are good is not judged.
func (r *Request) Key(chain []*x509.Certificate) (*signer.Key, error) {
	made := map[string][]byte{}
	for _, i := range r.Items {
		if len(i.Signature) == 0 {
			return nil, fmt.Errorf("%w: %s has no signature", ErrUnanswered, i.Kind)
		}
		made[string(i.sum())] = i.Signature
	}
	if chain == nil {
		var err error
		if chain, err = signer.ParseCertificates([]byte(r.Certificates)); err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
	}
	if sigstore.Hash(chain[0].PublicKey) != crypto.SHA256 {
		return nil, ErrHash
	}
	return signer.NewKey(answered{chain[0].PublicKey, made}, chain)
}

// Check says whether the request is about the subject.
func (r *Request) Check(s Subject) error {
	want, err := New(s)
	if err != nil {
		return err
	}
	if r.Bundle != want.Bundle || r.Kernel != want.Kernel {
		return fmt.Errorf("%w: %.100q, %.100q; not %q, %q", ErrSubject, r.Bundle.Name, r.Bundle.Digest, s.Name, s.Digest)
	}
	return nil
}

// answered is a private key as far as it was used.
type answered struct {
	public crypto.PublicKey
	made   map[string][]byte // signatures by digest
}

func (a answered) Public() crypto.PublicKey { return a.public }

func (a answered) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	if sig := a.made[string(digest)]; sig != nil {
		return sig, nil
	}
	return nil, fmt.Errorf("%w: the digest %x was not in the request", ErrUnanswered, digest)
}
