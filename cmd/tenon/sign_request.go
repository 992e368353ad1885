// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/request"
)

// prepareSigning is the first phase.
func (a *app) prepareSigning(ctx context.Context, ref, output string) (err error) {
	stop := a.working()
	defer stop()
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	r, err := signature.Prepare(ctx, b)
	if err != nil {
		return err
	}
	stop()
	return a.writeRequest(r, output)
}

// answerRequest is what happens where the key is.
func (a *app) answerRequest(ctx context.Context, o *keyOptions, path, output string) error {
	r, err := readRequest(path)
	if err != nil {
		return err
	}
	key, err := a.openKey(ctx, o)
	if err != nil {
		return err
	}
	for _, i := range r.Items {
		fmt.Fprintf(a.Stderr, "signing    %s, over %s\n", i.Kind, i.Over)
	}
	if err := r.Sign(ctx, key); err != nil {
		return fmt.Errorf("request %q: %w", path, err)
	}
	return a.writeRequest(r, output)
}

// attachSignatures is the last phase.
func (a *app) attachSignatures(ctx context.Context, ref, path, cert string) (err error) {
	r, err := readRequest(path)
	if err != nil {
		return err
	}
	var chain []*x509.Certificate
	if cert != "" {
		data, err := cli.ReadSmall(cert)
		if err != nil {
			return err
		}
		if chain, err = signer.ParseCertificates(data); err != nil {
			return fmt.Errorf("certificate %q: %w", cert, err)
		}
	}
	stop := a.working()
	defer stop()
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	key, err := signature.Attach(ctx, b, r, chain)
	if err != nil {
		return fmt.Errorf("request %q: %w", path, err)
	}
	stop()
	a.saySigned(key)
	_, err = fmt.Fprintln(a.Stdout, b.Digest)
	return err
}

func readRequest(path string) (*request.Request, error) {
	data, err := cli.ReadSmall(path)
	if err != nil {
		return nil, fmt.Errorf("reading request: %w", err)
	}
	r, err := request.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("request %q: %w", path, err)
	}
	return r, nil
}

func (a *app) writeRequest(r *request.Request, output string) error {
	data, err := r.Encode()
	if err != nil {
		return err
	}
	if output == "" || output == "-" {
		_, err = a.Stdout.Write(data)
		return err
	}
	return regular.Replace(output, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}
