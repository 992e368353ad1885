// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/internal/testkey"
)

func of(key *signer.Key) *signer.Signer { return &signer.Signer{Key: key.Public(), Chain: key.Chain} }

func TestTrusts(t *testing.T) {
	root, stranger := testkey.NewAuthority(t), testkey.NewAuthority(t)
	middle := root.Intermediate(t)
	key := middle.Key(t, nil)
	bare := &signer.Signer{Key: key.Public()}
	certificates := func(c ...*x509.Certificate) Identity { return Identity{Name: "x", Certificates: c} }
	now := time.Now()
	for _, test := range []struct {
		name, want string
		identity   Identity
		signer     *signer.Signer
		now        time.Time
	}{
		{"root", "", certificates(root.Root()), of(key), now},
		{"one of two roots", "", certificates(stranger.Root(), root.Root()), of(key), now},
		{"intermediate", "", certificates(middle.Chain[0]), of(key), now},
		{"leaf", "", certificates(key.Chain[0]), of(key), now},
		{"key", "", Identity{Key: key.Public()}, of(key), now},
		{"bare key", "", Identity{Key: key.Public()}, bare, now},
		{"key, when its certificate is expired", "", Identity{Key: key.Public()}, of(key), now.Add(2 * time.Hour)},
		{"nobody", "not exactly one", Identity{}, of(key), now},
		{"both", "not exactly one", Identity{Key: key.Public(), Certificates: key.Chain}, of(key), now},
		{"no signer", "no signer", certificates(root.Root()), nil, now},
		{"another root", `"CN=test intermediate"`, certificates(stranger.Root()), &signer.Signer{Key: key.Public(), Chain: key.Chain[:2]}, now},
		{"chain cut", `unknown authority, "CN=test intermediate"`, certificates(root.Root()), &signer.Signer{Key: key.Public(), Chain: key.Chain[:1]}, now},
		{"bare key for certificates", "without a certificate", certificates(root.Root()), bare, now},
		{"another's certificate", "does not belong", certificates(root.Root()), &signer.Signer{Key: stranger.Key(t, nil).Public(), Chain: key.Chain}, now},
		{"another key", "signed by the key sha256:", Identity{Key: root.Root().PublicKey}, of(key), now},
		{"expired", "expired on 20", certificates(root.Root()), of(key), now.Add(2 * time.Hour)},
		{"expired leaf that is given itself", "expired on 20", certificates(key.Chain[0]), of(key), now.Add(2 * time.Hour)},
		{"not yet valid", "not valid before 20", certificates(root.Root()), of(key), now.Add(-2 * time.Hour)},
		{"root expired first", `"CN=test root" expired`, certificates(root.Root()), of(root.Key(t, func(c *x509.Certificate) { c.NotAfter = now.Add(9 * time.Hour) })), now.Add(2 * time.Hour)},
		{"authority for a leaf", "is an authority's", certificates(root.Root()), of(root.Key(t, func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign
		})), now},
		{"not for code", "not for code signing", certificates(root.Root()), of(root.Key(t, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})), now},
		{"for anything", "not for code signing", certificates(root.Root()), of(root.Key(t, func(c *x509.Certificate) { c.ExtKeyUsage = nil })), now},
		{"not for signatures", "not for digital signatures", certificates(root.Root()), of(root.Key(t, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageKeyEncipherment
		})), now},
	} {
		err := test.identity.Trusts(test.signer, test.now)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

// files are what a policy may name.
func files(t testing.TB) map[string][]byte {
	t.Helper()
	authority := testkey.NewAuthority(t)
	root := authority.Root()
	chain, err := cryptoutils.MarshalCertificatesToPEM(authority.Key(t, nil).Chain)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(key any) []byte {
		b, err := cryptoutils.MarshalPublicKeyToPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	out := map[string][]byte{
		"ca.pem":  cryptoutils.PEMEncode(cryptoutils.CertificatePEMType, root.Raw),
		"rsa.pub": encode(root.PublicKey),
		"bad.pem": []byte("x"), "chain.pem": chain,
	}
	for name, curve := range map[string]elliptic.Curve{"p384.pub": elliptic.P384(), "p521.pub": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = encode(key.Public())
	}
	return out
}

func reader(files map[string][]byte) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		if b, ok := files[path]; ok {
			return b, nil
		}
		return nil, fs.ErrNotExist
	}
}

const good = `version = 1

[[identity]]
name = "release CI"
certificates = "ca.pem"
bundles = ["redis", "web-*"]

[[identity]]
name = "key"
public_key = "rsa.pub"
bundles = ["*"]
`

func TestParse(t *testing.T) {
	p, err := Parse([]byte(good), reader(files(t)))
	if err != nil {
		t.Fatal(err)
	}
	names := func(bundle string) string {
		var out []string
		for _, i := range p.For(bundle) {
			out = append(out, i.Name)
		}
		return strings.Join(out, " ")
	}
	for bundle, want := range map[string]string{"redis": "release CI key", "web-1": "release CI key", "redis2": "key", "web": "key"} {
		if got := names(bundle); got != want {
			t.Errorf("%s: got %q, want %q", bundle, got, want)
		}
	}
	if len(p.Identities[0].Certificates) != 1 || p.Identities[0].Key != nil || p.Identities[1].Key == nil {
		t.Errorf("got %+v", p.Identities)
	}
	if got := (&Policy{}).For("redis"); got != nil {
		t.Errorf("an empty policy has %v", got)
	}
	if p, err := Parse([]byte("version = 1"), nil); err != nil || p.For("redis") != nil {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestParseRefuses(t *testing.T) {
	read := reader(files(t))
	replace := func(old, with string) string { return strings.Replace(good, old, with, 1) }
	tests := map[string][2]string{
		"no version":           {"", "version 0"},
		"other version":        {replace("version = 1", "version = 2"), "version 2"},
		"unknown key":          {replace("bundles", "bundels"), `line 6: unknown key "identity.bundels"`},
		"unknown at top":       {"threshold = 2\n" + good, `line 1: unknown key "threshold"`},
		"key twice":            {replace("name", "name = \"x\"\nname"), "line 5"},
		"not TOML":             {"version = ", "line 1"},
		"another type":         {replace(`["redis", "web-*"]`, "1"), "line 6"},
		"no name":              {replace(`"release CI"`, `""`), "name: empty"},
		"name twice":           {replace("release CI", "key"), "another identity"},
		"neither":              {replace(`certificates = "ca.pem"`, ""), "exactly one"},
		"both":                 {replace("certificates", "public_key = \"rsa.pub\"\ncertificates"), "exactly one"},
		"no bundles":           {replace(`["redis", "web-*"]`, "[]"), "bundles: empty"},
		"bad pattern":          {replace("web-*", "["), "syntax error in pattern"},
		"no file":              {replace("ca.pem", "none.pem"), `"none.pem": file does not exist`},
		"not a certificate":    {replace("ca.pem", "bad.pem"), `"bad.pem": no certificate`},
		"not a key":            {replace("rsa.pub", "bad.pem"), `"bad.pem": no public key`},
		"certificate key":      {replace("rsa.pub", "ca.pem"), `"ca.pem": it holds a certificate`},
		"key for certificates": {replace("ca.pem", "rsa.pub"), `"rsa.pub": it holds a public key`},
		"ECDSA with P-521":     {replace("rsa.pub", "p521.pub"), "key of ecdsa-p521: only RSA"},
		"leaf with its CA":     {replace("ca.pem", "chain.pem"), `"chain.pem": it holds a chain`},
		"large":                {good + strings.Repeat("#", MaxSize), "larger"},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		test := tests[name]
		_, err := Parse([]byte(test[0]), read)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(fmt.Sprint(err), test[1]) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", name, err, test[1])
		}
	}
}

// What is taken, every identity of it can be used.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	read := reader(files(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data, read)
		if err != nil {
			return
		}
		for _, i := range p.Identities {
			if (i.Key == nil) == (i.Certificates == nil) || len(i.Bundles) == 0 {
				t.Errorf("took %+v", i)
			}
		}
	})
}

// TestDocs holds docs/trust.md to the code: its policy is one.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```toml\n")
	example, _, _ := strings.Cut(rest, "```")
	p, err := Parse([]byte(example), func(path string) ([]byte, error) {
		return cryptoutils.MarshalCertificatesToPEM(testkey.NewAuthority(t).Chain)
	})
	if err != nil || len(p.For("redis")) != 1 || len(p.For("web-1")) != 1 || len(p.For("web")) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}
