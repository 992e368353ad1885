// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/tenon-build/tenon/signer/pkcs11uri"
)

// ErrNoPlugin says that the program that would reach a key is not installed.
var ErrNoPlugin = errors.New("no such program on PATH")

// pinVariable holds the PIN for the plug-ins that tenon runs.
const pinVariable = "TENON_PIN"

// plugin is a key that another program reaches: sigstore-kms-NAME, as cosign runs
// it too. The key's name travels on the command line, the digest as well, PINs in
// the environment.
type plugin struct {
	ctx     context.Context
	program string
	client  signature.Signer
	public  crypto.PublicKey
}

// openPlugin asks the program for the public key.
func openPlugin(ctx context.Context, name, id string) (*plugin, error) {
	p := &plugin{ctx: ctx, program: cliplugin.PluginBinaryPrefix + name}
	var err error
	p.client, err = cliplugin.LoadSignerVerifier(ctx, name+"://"+id, crypto.SHA256)
	if errors.Is(err, exec.ErrNotFound) {
		err = ErrNoPlugin
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.program, err)
	}
	p.public, err = ask(p, func() (crypto.PublicKey, error) { return p.client.PublicKey(options.WithContext(ctx)) })
	return p, err
}

func (p *plugin) Public() crypto.PublicKey { return p.public }

func (p *plugin) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return ask(p, func() ([]byte, error) {
		return p.client.SignMessage(bytes.NewReader(nil), options.WithDigest(digest), options.WithCryptoSignerOpts(opts), options.WithContext(p.ctx))
	})
}

// ask waits for the program's answer until the context ends, even if the program
// has left children behind that do not.
func ask[T any](p *plugin, question func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		defer func() {
			if recover() != nil { // the library looks into an answer that is not there
				a.err = errors.New("its answer lacks what was asked for")
			}
			done <- a
		}()
		a.value, a.err = question()
	}()
	var a answer
	select {
	case a = <-done:
	case <-p.ctx.Done():
	}
	if p.ctx.Err() != nil {
		a.err = p.ctx.Err()
	}
	if a.err != nil {
		return a.value, fmt.Errorf("%s: %w", p.program, a.err)
	}
	return a.value, nil
}

// openToken opens a key by its PKCS#11 URI, whose PIN it asks for once.
func openToken(ctx context.Context, uri string, o OpenOptions) (*plugin, error) {
	u, err := pkcs11uri.Parse(uri)
	if err != nil {
		return nil, err
	}
	if _, set := os.LookupEnv(pinVariable); !set && u.PINSource == "" && o.Secret != nil {
		pin, err := o.Secret(PIN + " of " + uri)
		if err != nil {
			return nil, err
		}
		if len(pin) > 0 { // a token may need none
			if err := os.Setenv(pinVariable, string(pin)); err != nil {
				return nil, errors.New("the PIN is not text") // without it
			}
		}
	}
	return openPlugin(ctx, "pkcs11", strings.TrimPrefix(strings.TrimPrefix(uri, "pkcs11:"), "//"))
}
