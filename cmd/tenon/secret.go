// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer"
)

// Secrets come from here, or from a file descriptor or the terminal; never from a
// flag. $TENON_PIN is the plug-ins' business.
const (
	passphraseVariable       = "TENON_PASSPHRASE"
	issuerPassphraseVariable = "TENON_ISSUER_PASSPHRASE" // of the issuer's key, where it has one of its own
	cosignVariable           = "COSIGN_PASSWORD"
)

const (
	maxSecret = 4096 // bytes
	noFD      = -1
)

// passphrase is what the environment says.
func passphrase() []byte {
	if p := os.Getenv(passphraseVariable); p != "" {
		return []byte(p)
	}
	return []byte(os.Getenv(cosignVariable))
}

// secrets knows the passphrases and PINs of one command.
type secrets struct {
	fd   int
	read []byte // from fd, once; not nil then
}

func (s *secrets) flags(f *pflag.FlagSet) {
	f.IntVar(&s.fd, "passphrase-fd", noFD, "read the passphrase or PIN from this file descriptor, up to a line's end (default: $TENON_PASSPHRASE, else ask)")
}

// given is the passphrase that nobody has to be asked for; empty: there is none.
func (s *secrets) given() ([]byte, error) {
	if s.fd == noFD {
		return []byte(os.Getenv(passphraseVariable)), nil
	}
	return s.fromFD()
}

func (s *secrets) fromFD() ([]byte, error) {
	if s.read != nil {
		return s.read, nil
	}
	if s.fd < 0 {
		return nil, cli.Exit(cli.ExitUsage, fmt.Errorf("--passphrase-fd %d: not a file descriptor", s.fd))
	}
	f := os.NewFile(uintptr(s.fd), "file descriptor")
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, maxSecret+1)).ReadBytes('\n')
	switch {
	case err != nil && err != io.EOF:
		return nil, fmt.Errorf("--passphrase-fd %d: %w", s.fd, err)
	case len(line) > maxSecret:
		return nil, fmt.Errorf("--passphrase-fd %d: longer than %d bytes", s.fd, maxSecret)
	}
	if s.read = bytes.TrimRight(line, "\r\n"); len(s.read) == 0 { // whoever names one has a secret
		return nil, fmt.Errorf("--passphrase-fd %d: nothing was read", s.fd)
	}
	return s.read, nil
}

// ask is how packages ask for a secret. $TENON_PASSPHRASE is tried as no PIN: a
// token takes few wrong ones.
func (s *secrets) ask(ctx context.Context) func(what string) ([]byte, error) {
	return func(what string) ([]byte, error) {
		if s.fd != noFD {
			return s.fromFD()
		}
		if p := passphrase(); len(p) > 0 && !strings.HasPrefix(what, signer.PIN) {
			return p, nil
		}
		return prompt(ctx, what)
	}
}

// askIssuer is the same for the key of an issuer.
func (s *secrets) askIssuer(ctx context.Context) func(what string) ([]byte, error) {
	return func(what string) ([]byte, error) {
		if p := os.Getenv(issuerPassphraseVariable); p != "" && !strings.HasPrefix(what, signer.PIN) {
			return []byte(p), nil
		}
		return s.ask(ctx)(what)
	}
}

// terminal is where prompt asks.
var terminal = "/dev/tty"

// prompt asks on the terminal, if there is one. What is typed is not shown.
func prompt(ctx context.Context, what string) ([]byte, error) {
	tty, err := os.OpenFile(terminal, os.O_RDWR, 0)
	if err != nil {
		return nil, nil
	}
	defer tty.Close()
	fd := int(tty.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type answer struct {
		secret []byte
		err    error
	}
	done := make(chan answer, 1)
	fmt.Fprintf(tty, "%s: ", cli.Escape(what))
	go func() {
		secret, err := term.ReadPassword(fd)
		done <- answer{secret, err}
	}()
	defer fmt.Fprintln(tty)
	select {
	case a := <-done:
		if errors.Is(a.err, io.EOF) { // nothing was typed
			a.err = nil
		}
		return a.secret, a.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(fd, state))
	}
}
