// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer/revocation"
)

// hints are the next steps for errors, the most particular first.
var hints = []struct {
	err  error
	hint string
}{
	{cli.ErrNoTrust, "a policy says who may run what on this host: docs/trust.md"},
	{cli.ErrPrivateKey, "give the public key, or a certificate with --cert"},
	{loader.ErrUnsigned, "'tenon sign BUNDLE --key KEY' signs it, where the key is"},
	{revocation.ErrInvalid, "whoever signs the list issues it anew: 'tenon key revoke --list FILE --key KEY'"},
	{loader.ErrRollback, "what was seen is in trust.json of the --state directory"},
	{manifest.ErrVersion, "the bundle was made by another version of tenon: build it again"},
	{bundle.ErrInvalid, "a bundle is what 'tenon build' writes: oci:DIR, oci-archive:FILE, a path to either, or HOST/NAME:TAG"},
}

func hint(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return ""
}
