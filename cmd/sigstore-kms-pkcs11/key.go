// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/tenon-build/tenon/signer/pkcs11uri"
)

// key is a private key in a token, with the session that found it.
type key struct {
	ctx     *pkcs11.Ctx
	session pkcs11.SessionHandle
	private pkcs11.ObjectHandle
	public  crypto.PublicKey
}

// openKey finds the one key that the URI names.
func openKey(ctx *pkcs11.Ctx, u *pkcs11uri.URI) (*key, error) {
	pin, err := findPIN(u)
	if err != nil {
		return nil, err
	}
	slot, label, err := findToken(ctx, u)
	if err != nil {
		return nil, err
	}
	k := &key{ctx: ctx}
	if k.session, err = ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
		return nil, fmt.Errorf("token %q: %w", label, err)
	}
	if pin != "" {
		err := ctx.Login(k.session, pkcs11.CKU_USER, pin)
		if errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)) {
			err = errors.New("wrong PIN")
		}
		if err != nil {
			return nil, fmt.Errorf("token %q: %w", label, err)
		}
	}
	if err := k.find(u, pin != ""); err != nil {
		return nil, fmt.Errorf("token %q: %w", label, err)
	}
	return k, nil
}

// findPIN returns the PIN, or nothing.
func findPIN(u *pkcs11uri.URI) (string, error) {
	if u.PINSource == "" {
		return os.Getenv("TENON_PIN"), nil
	}
	data, err := os.ReadFile(u.PINSource)
	if err != nil {
		return "", fmt.Errorf("pin-source: %w", err)
	}
	pin, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSuffix(pin, "\r"), nil
}

// loadModule loads the library that the URI names, or else $PKCS11_MODULE_PATH, or
// else p11-kit's, which knows all that are installed. Finalize ends its sessions.
func loadModule(u *pkcs11uri.URI) (*pkcs11.Ctx, error) {
	for _, path := range modules(u) {
		ctx := pkcs11.New(path)
		if ctx == nil {
			continue
		}
		if err := ctx.Initialize(); err != nil {
			ctx.Destroy()
			return nil, fmt.Errorf("module %q: %w", path, err)
		}
		return ctx, nil
	}
	return nil, fmt.Errorf("cannot load a PKCS#11 module: tried %s", strings.Join(modules(u), ", "))
}

// modules are the libraries to try. What has no folder is where the system's
// libraries are.
func modules(u *pkcs11uri.URI) []string {
	if u.Module != "" {
		return []string{u.Module}
	}
	if path := os.Getenv("PKCS11_MODULE_PATH"); path != "" && u.ModuleName == "" {
		return []string{path}
	}
	if u.ModuleName == "" {
		return []string{"p11-kit-proxy.so"}
	}
	var paths []string
	for _, file := range []string{"lib" + u.ModuleName + ".so", u.ModuleName + ".so"} {
		paths = append(paths, file)
		for _, dir := range []string{"/usr/lib/*", "/usr/lib/*/pkcs11", "/usr/lib64/pkcs11"} {
			found, _ := filepath.Glob(filepath.Join(dir, file))
			paths = append(paths, found...)
		}
	}
	return paths
}

// findToken returns the one token that the URI names, and its label.
func findToken(ctx *pkcs11.Ctx, u *pkcs11uri.URI) (slot uint, label string, err error) {
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return 0, "", err
	}
	found := 0
	for _, id := range slots {
		info, err := ctx.GetTokenInfo(id)
		if err != nil {
			return 0, "", fmt.Errorf("slot %d: %w", id, err)
		}
		fits := info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 && (u.Slot == nil || *u.Slot == id)
		for _, a := range [][2]string{{u.Token, info.Label}, {u.Serial, info.SerialNumber}, {u.Model, info.Model}, {u.Manufacturer, info.ManufacturerID}} {
			fits = fits && (a[0] == "" || a[0] == a[1])
		}
		if fits {
			found, slot, label = found+1, id, info.Label
		}
	}
	switch {
	case found == 0:
		return 0, "", fmt.Errorf("none of the tokens in %d slots is the one that the URI names", len(slots))
	case found > 1:
		return 0, "", fmt.Errorf("the URI fits %d tokens: name one with token, serial or slot-id", found)
	}
	return slot, label, nil
}

// find finds the private key, and reads the public one.
func (k *key) find(u *pkcs11uri.URI, loggedIn bool) error {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}
	if u.Object != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, u.Object))
	}
	if u.ID != nil {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, u.ID))
	}
	private, err := k.objects(template...)
	switch {
	case err != nil:
		return err
	case len(private) == 0 && !loggedIn:
		return errors.New("there is no such private key, or it takes a PIN to see it, which nobody gave")
	case len(private) == 0:
		return errors.New("there is no such private key")
	case len(private) > 1:
		return fmt.Errorf("the URI fits %d private keys: name one with object and id", len(private))
	}
	k.private = private[0]
	id, err := k.ctx.GetAttributeValue(k.session, k.private, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, nil), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil)})
	if err != nil {
		return err
	}
	// PKCS#11, 4.8: the two halves have the same ID and type.
	public, err := k.objects(append(id, pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY))...)
	switch {
	case err != nil:
		return err
	case len(public) != 1:
		return fmt.Errorf("%d public keys have the private one's ID: want 1", len(public))
	}
	k.public, err = k.readPublic(public[0])
	return err
}

func (k *key) objects(template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := k.ctx.FindObjectsInit(k.session, template); err != nil {
		return nil, err
	}
	found, _, err := k.ctx.FindObjects(k.session, 16)
	return found, errors.Join(err, k.ctx.FindObjectsFinal(k.session))
}

func (k *key) readPublic(o pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	if a, err := k.attributes(o, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT); err == nil {
		e := new(big.Int).SetBytes(a[1])
		if !e.IsInt64() {
			return nil, errors.New("RSA key with a large exponent")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(a[0]), E: int(e.Int64())}, nil
	}
	a, err := k.attributes(o, pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, errors.New("the key is neither RSA nor ECDSA")
	}
	var name asn1.ObjectIdentifier
	var point []byte
	if _, err := asn1.Unmarshal(a[0], &name); err != nil {
		return nil, errors.New("the key's curve has no name")
	}
	if _, err := asn1.Unmarshal(a[1], &point); err != nil {
		return nil, errors.New("the key's point is not an OCTET STRING")
	}
	curve, ok := map[string]elliptic.Curve{"1.2.840.10045.3.1.7": elliptic.P256(), "1.3.132.0.34": elliptic.P384()}[name.String()]
	if !ok {
		return nil, fmt.Errorf("the key's curve, %s, is neither P-256 nor P-384", name)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

func (k *key) attributes(o pkcs11.ObjectHandle, types ...uint) ([][]byte, error) {
	var template []*pkcs11.Attribute
	for _, t := range types {
		template = append(template, pkcs11.NewAttribute(t, nil))
	}
	got, err := k.ctx.GetAttributeValue(k.session, o, template)
	if err != nil {
		return nil, err
	}
	var values [][]byte
	for _, a := range got {
		if len(a.Value) == 0 {
			return nil, errors.New("empty attribute")
		}
		values = append(values, a.Value)
	}
	return values, nil
}

// hashes are those that a DigestInfo names.
var hashes = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
	crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2},
	crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
}

// sign signs a digest: PKCS#1 v1.5 for RSA, the DER of the two numbers for ECDSA.
func (k *key) sign(digest []byte, hash crypto.Hash) ([]byte, error) {
	if hashes[hash] == nil || len(digest) != hash.Size() {
		return nil, fmt.Errorf("a digest of %d bytes, not of SHA-256, SHA-384 or SHA-512", len(digest))
	}
	if _, ok := k.public.(*rsa.PublicKey); ok {
		info, err := asn1.Marshal(struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}{pkix.AlgorithmIdentifier{Algorithm: hashes[hash], Parameters: asn1.NullRawValue}, digest})
		if err != nil {
			return nil, err
		}
		return k.signRaw(pkcs11.CKM_RSA_PKCS, info)
	}
	sig, err := k.signRaw(pkcs11.CKM_ECDSA, digest)
	if err != nil {
		return nil, err
	}
	r, s := new(big.Int).SetBytes(sig[:len(sig)/2]), new(big.Int).SetBytes(sig[len(sig)/2:])
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

func (k *key) signRaw(mechanism uint, data []byte) ([]byte, error) {
	if err := k.ctx.SignInit(k.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, k.private); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	sig, err := k.ctx.Sign(k.session, data)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return sig, nil
}
