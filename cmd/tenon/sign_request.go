// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/request"
)

// phases are the flags of signing in two phases.
type phases struct {
	prepare                 bool
	request, attach, output string
}

func (p *phases) flags(f *pflag.FlagSet) {
	f.BoolVar(&p.prepare, "prepare", false, "write what is to be signed, as a request")
	f.StringVar(&p.request, "request", "", "sign this request (FILE), of which no bundle is needed")
	f.StringVar(&p.attach, "attach", "", "attach the signatures of an answered request (FILE)")
	f.StringVarP(&p.output, "output", "o", "-", "with --prepare and --request: FILE, or - for stdout")
}

// check says what the flags of keys and phases lack, or have too much.
func (p *phases) check(o *keyOptions, args []string) error {
	withKey := !p.prepare && p.attach == ""
	switch {
	case withKey && o.key == "":
		return errors.New("needs --key, or one of --prepare and --attach")
	case p.prepare && o.cert != "":
		return errors.New("--cert has no use with --prepare")
	case p.request != "" && len(args) > 0:
		return errors.New("--request takes no bundle: it is signed as it is")
	case p.request == "" && len(args) == 0:
		return errors.New("BUNDLE is missing")
	case p.output != "-" && !p.prepare && p.request == "":
		return errors.New("-o has no use here: the signatures go to the bundle")
	}
	return nil
}

// prepareSigning is the first phase.
func (a *app) prepareSigning(ctx context.Context, ref, output string) (err error) {
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	r, err := builder.PrepareSigning(ctx, b)
	if err != nil {
		return err
	}
	return a.writeRequest(r, output)
}

// answerRequest is what happens where the key is.
func (a *app) answerRequest(ctx context.Context, o *keyOptions, path, output string) error {
	r, err := readRequest(path)
	if err != nil {
		return err
	}
	key, err := signer.Open(o.key, o.cert)
	if err != nil {
		return err
	}
	for _, i := range r.Items {
		fmt.Fprintf(a.stderr, "signing    %s, over %s\n", i.Kind, i.Over)
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
		data, err := readSmall(cert)
		if err != nil {
			return err
		}
		if chain, err = signer.ParseCertificates(data); err != nil {
			return fmt.Errorf("certificate %q: %w", cert, err)
		}
	}
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	key, err := builder.AttachSignatures(ctx, b, r, chain)
	if err != nil {
		return fmt.Errorf("request %q: %w", path, err)
	}
	a.saySigned(key)
	_, err = fmt.Fprintln(a.stdout, b.Digest)
	return err
}

func readRequest(path string) (*request.Request, error) {
	data, err := readSmall(path)
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
	if output == "-" {
		_, err = a.stdout.Write(data)
		return err
	}
	return builder.ReplaceFile(output, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}
