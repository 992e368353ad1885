// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/statement"
	"github.com/tenon-build/tenon/signer/trust"
	"github.com/tenon-build/tenon/testdata/testpe"
)

// testKeys makes keys once for all tests, in dir: two CAs with a leaf each.
var testKeys = sync.OnceValues(func() (dir string, err error) {
	dir, err = os.MkdirTemp("", "tenon-keys-")
	for _, name := range []string{"ours", "theirs"} {
		err = errors.Join(err, signer.Create(filepath.Join(dir, name), signer.CreateOptions{Name: name, Valid: 24 * time.Hour}))
	}
	return dir, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := testKeys(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func keyOf(t *testing.T, name string) *signer.Key {
	t.Helper()
	dir, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	key, err := signer.Open(t.Context(), filepath.Join(dir, name, "signing.key"), signer.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// identity trusts the CA of a key.
func identity(t *testing.T, name string, bundles ...string) trust.Identity {
	t.Helper()
	chain := keyOf(t, name).Chain
	return trust.Identity{Name: name, Certificates: chain[len(chain)-1:], Bundles: bundles}
}

func policyOf(identities ...trust.Identity) Policy {
	return Policy{Trust: &trust.Policy{Identities: identities}}
}

// attach signs a bundle on disk in some ways.
func attach(t *testing.T, path string, key *signer.Key, kinds ...string) {
	t.Helper()
	b, err := bundle.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	kernel, err := signature.OpenKernel(t.Context(), b)
	if err != nil || kernel.Err != nil {
		t.Fatal(err, kernel)
	}
	defer kernel.Close()
	chain := string(must(cryptoutils.MarshalCertificatesToPEM(key.Chain)))
	for _, a := range []bundle.Attachment{
		{Type: bundle.AuthenticodeType, MediaType: bundle.PKCS7Type, Data: must(authenticode.Sign(key, kernel.Digest))},
		{Type: bundle.StatementType, MediaType: bundle.PKCS7Type, Data: must(statement.Sign(key, signature.Statement(b)))},
		{Type: bundle.SigstoreType, MediaType: bundle.SigstoreType, Data: must(sigstore.Sign(key, b.Digest.String())), Annotations: map[string]string{bundle.CertificatesAnnotation: chain}},
	} {
		if len(kinds) == 0 || slices.Contains(kinds, a.Type) {
			if err := b.Attach(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// signedBundle is a bundle on disk with all signatures, and a policy that
// accepts it.
func signedBundle(t *testing.T, body []byte) (path string, policy Policy) {
	t.Helper()
	path, _ = newBundleOf(t, testpe.Image(body), "", func(m *manifest.Manifest) {
		m.App.Env, m.App.User, m.App.StopSignal, m.App.Ports = []string{"A=1"}, "web", "SIGTERM", []string{"80/tcp"}
		m.App.Health = &manifest.Health{TCP: 80, Interval: 1e9, Timeout: 1e9, Retries: 3}
		m.Recipe, m.Toolchain = "static", manifest.Toolchain{Compiler: "gcc", Linker: "ld", Tenon: "1"}
	})
	attach(t, path, keyOf(t, "ours"))
	return path, policyOf(identity(t, "ours", "web"))
}

func TestVerifySigned(t *testing.T) {
	path, policy := signedBundle(t, nil)
	var checks []Check
	v, err := Verify(t.Context(), path, policy, func(c Check) { checks = append(checks, c) })
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if v.Identity() != "ours" || len(checks) != 11 || slices.ContainsFunc(checks, func(c Check) bool { return c.Result != CheckOK || c.Detail == "" }) {
		t.Errorf("%q, %+v", v.Identity(), checks)
	}
	key := trust.Identity{Name: "key", Key: keyOf(t, "ours").Public(), Bundles: []string{"*"}}
	if v, err := Verify(t.Context(), path, policyOf(identity(t, "theirs", "*"), key), nil); err != nil || v.Identity() != "key" {
		t.Errorf("by the second identity, a key: %v", err)
	} else {
		v.Close()
	}
}

func TestVerifyJudges(t *testing.T) {
	ours, theirs := func(bundles ...string) trust.Identity { return identity(t, "ours", bundles...) }, identity(t, "theirs", "*")
	signedBy := func(names ...string) string {
		path, _ := newBundleOf(t, testpe.Image(nil), "", nil)
		for _, name := range names {
			attach(t, path, keyOf(t, name))
		}
		return path
	}
	partly := func(kinds ...string) string {
		path := signedBy()
		attach(t, path, keyOf(t, "ours"), kinds...)
		return path
	}
	shared := partly(bundle.AuthenticodeType, bundle.StatementType) // by two, and by none of them in full
	attach(t, shared, keyOf(t, "theirs"), bundle.SigstoreType)
	for _, test := range []struct {
		name, path string
		policy     Policy
		want       string // empty: accepted
	}{
		{"by whom we trust", signedBy("ours"), policyOf(ours("web")), ""},
		{"by a pattern", signedBy("ours"), policyOf(ours("w*")), ""},
		{"by two, one of whom we trust", signedBy("theirs", "ours"), policyOf(ours("web")), ""},
		{"by somebody else", signedBy("theirs"), policyOf(ours("web")), `no sigstore signature of "ours"`},
		{"by nobody", signedBy(), policyOf(ours("web")), "the bundle is not signed"},
		{"for another name", signedBy("ours"), policyOf(ours("redis")), `the policy lets nobody sign for "web"`},
		{"one may sign, the other did", signedBy("ours"), policyOf(ours("redis"), theirs), `no sigstore signature of "theirs"`},
		{"empty policy", signedBy("ours"), policyOf(), `the policy lets nobody sign for "web"`},
		{"no policy", signedBy("ours"), Policy{}, "the policy trusts nobody"},
		{"without the statement", partly(bundle.AuthenticodeType, bundle.SigstoreType), policyOf(ours("web")), `"ours" made no statement signature`},
		{"without the kernel's", partly(bundle.StatementType, bundle.SigstoreType), policyOf(ours("web")), `"ours" made no authenticode signature`},
		{"without the bundle's", partly(bundle.AuthenticodeType, bundle.StatementType), policyOf(ours("web")), `"ours" made no sigstore signature`},
		{"by two together", shared, policyOf(ours("web"), theirs), `no sigstore signature of "ours"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := Verify(t.Context(), test.path, test.policy, nil)
			switch {
			case err == nil && test.want == "":
				v.Close()
			case err == nil:
				v.Close()
				t.Error("accepted")
			case test.want == "" || !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want):
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	contradiction := policyOf(ours("web"))
	contradiction.AllowUnsigned = true
	if _, err := Verify(t.Context(), signedBy("ours"), contradiction, nil); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("a policy that contradicts itself: %v", err)
	}
	// Nobody is trusted by looking.
	b, err := bundle.Open(t.Context(), signedBy("theirs"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	kernel := must(signature.OpenKernel(t.Context(), b))
	defer kernel.Close()
	signatures, err := signature.Read(t.Context(), b, kernel)
	if err != nil || len(signatures) != 3 || slices.ContainsFunc(signatures, func(s signature.Signature) bool {
		return s.Err != nil || !strings.Contains(s.Signer.String(), "theirs")
	}) {
		t.Errorf("%+v, %v", signatures, err)
	}
}
