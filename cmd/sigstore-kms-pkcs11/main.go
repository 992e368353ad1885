// SPDX-License-Identifier: Apache-2.0

//go:build cgo

// Command sigstore-kms-pkcs11 signs with keys in PKCS#11 tokens: HSMs and smart
// cards. tenon runs it for pkcs11: references, by sigstore's protocol for
// plug-ins: a question as JSON in the arguments, an answer on stdout.
//
// It is a program of its own because it loads the vendor's library, and tenon
// loads none. The PIN is taken from the file that pin-source in the URI names, or
// from $TENON_PIN; without one, it does not log in.
package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"

	"github.com/tenon-build/tenon/signer/pkcs11uri"
)

func main() {
	if err := answer(); err != nil {
		if err := handler.WriteErrorResponse(os.Stdout, err); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}

func answer() error {
	args, err := handler.GetPluginArgs(os.Args)
	switch {
	case err != nil:
		return err
	case os.Args[1] != common.ProtocolVersion || args.MethodArgs == nil || args.InitOptions == nil:
		return fmt.Errorf("not a question of protocol %s", common.ProtocolVersion)
	}
	uri, err := pkcs11uri.Parse(args.InitOptions.KeyResourceID)
	if err != nil {
		return err
	}
	module, err := loadModule(uri)
	if err != nil {
		return err
	}
	defer module.Destroy()
	defer func() { _ = module.Finalize() }()
	key, err := openKey(module, uri)
	if err != nil {
		return err
	}
	_, err = handler.Dispatch(os.Stdout, os.Stdin, args, &plugin{key, args.InitOptions.HashFunc})
	return err
}

var errUnsupported = errors.New("not supported: keys are made with the token's own tools")

// plugin answers the questions.
type plugin struct {
	key  *key
	hash crypto.Hash // where a question names none
}

func (p *plugin) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return p.key.public, nil
}

func (p *plugin) SignMessage(message io.Reader, opts ...signature.SignOption) ([]byte, error) {
	digest, hash, err := signature.ComputeDigestForSigning(message, p.hash, []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}, opts...)
	if err != nil {
		return nil, err
	}
	return p.key.sign(digest, hash)
}

func (p *plugin) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	v, err := signature.LoadVerifier(p.key.public, p.hash)
	if err != nil {
		return err
	}
	return v.VerifySignature(sig, message, opts...)
}

func (p *plugin) CreateKey(context.Context, string) (crypto.PublicKey, error) {
	return nil, errUnsupported
}

func (p *plugin) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, errUnsupported
}

func (p *plugin) SupportedAlgorithms() []string { return nil }
func (p *plugin) DefaultAlgorithm() string      { return "" }
