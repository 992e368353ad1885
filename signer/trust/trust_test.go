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
	"reflect"
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
		err := test.identity.CheckSigner(test.signer, nil, test.now)
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
		"bad.pem": []byte("x"), "chain.pem": chain, "revoked": []byte("a list"),
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
subject = "CN=release"
usages = ["1.3.6.1.4.1.311.10.3.6"]
grace = "168h"
bundles = ["redis", "web-*"]
claims = { cpus = 4, memory = "2GiB", devices = ["net"] }

[[identity]]
name = "key"
public_key = "rsa.pub"
bundles = ["*"]

[[identity]]
name = "security team"
certificates = "ca.pem"

[[bundle]]
names = ["web-*"]
threshold = 2
minimum_version = "1.4.0"

[revocation]
list = "revoked"
signer = "security team"
max_age = "720h"
`

func TestParse(t *testing.T) {
	p, err := Parse([]byte(good), reader(files(t)))
	if err != nil {
		t.Fatal(err)
	}
	names := func(bundle string) string {
		var out []string
		may, _ := p.For(Bundle{Name: bundle})
		for _, i := range may {
			out = append(out, i.Name)
		}
		return strings.Join(out, " ")
	}
	for bundle, want := range map[string]string{"redis": "release CI key", "web-1": "release CI key", "redis2": "key", "web": "key"} {
		if got := names(bundle); got != want {
			t.Errorf("%s: got %q, want %q", bundle, got, want)
		}
	}
	ci, key := p.Identities[0], p.Identities[1]
	if len(ci.Certificates) != 1 || ci.Key != nil || ci.Subject != "CN=release" || ci.Usages[0].String() != "1.3.6.1.4.1.311.10.3.6" || ci.Grace != 168*time.Hour {
		t.Errorf("got %+v", ci)
	}
	if c := ci.Claims; c.CPUs != 4 || c.Memory != 2<<30 || !slices.Equal(c.Devices, []string{"net"}) {
		t.Errorf("got %+v", c)
	}
	if c := key.Claims; key.Key == nil || c.CPUs != 0 || c.Memory != 0 || c.Devices != nil {
		t.Errorf("got %+v", key)
	}
	if r := p.Revocation; string(r.List) != "a list" || r.Signer.Name != "security team" || r.MaxAge != 720*time.Hour {
		t.Errorf("got %+v", r)
	}
	for name, text := range map[string]string{"empty": "version = 1", "of rules alone": "version = 1\n[[bundle]]\nnames = [\"*\"]\nthreshold = 1"} {
		if p, err := Parse([]byte(text), nil); err != nil {
			t.Error(err)
		} else if may, why := p.For(Bundle{Name: "redis"}); may != nil || why != nil {
			t.Errorf("a policy that is %s has %v, %v", name, may, why)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	read := reader(files(t))
	replace := func(old, with string) string { return strings.Replace(good, old, with, 1) }
	tests := map[string][2]string{
		"no version":           {"", "version 0"},
		"other version":        {replace("version = 1", "version = 2"), "version 2"},
		"unknown key":          {replace("bundles", "bundels"), `line 9: unknown key "identity.bundels"`},
		"unknown at top":       {"threshold = 2\n" + good, `line 1: unknown key "threshold"`},
		"another case at top":  {replace("version = 1", "Version = 1"), `unknown key "Version"`},
		"key in two cases":     {replace("threshold = 2", "Threshold = 2\nthreshold = 1"), `unknown key "Threshold"`},
		"claim in two cases":   {replace("cpus = 4", "CPUS = 4, cpus = 8"), `unknown key "CPUS"`},
		"quoted key":           {replace("[revocation]\nlist", "[revocation]\n\"List\""), `unknown key "List"`},
		"table in two cases":   {good + "[[Bundle]]\nnames = [\"x\"]\n", `unknown key "Bundle"`},
		"Kelvin":               {replace("public_key", "\"public_\u212aey\""), "unknown key \"public_\u212aey\""},
		"key twice":            {replace("name", "name = \"x\"\nname"), "line 5"},
		"not TOML":             {"version = ", "line 1"},
		"another type":         {replace(`["redis", "web-*"]`, "1"), "line 9"},
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
		"subject of a key":     {replace("public_key", "subject = \"CN=x\"\npublic_key"), "it has a public_key"},
		"grace of a key":       {replace("public_key", "grace = \"1h\"\npublic_key"), "it has a public_key"},
		"grace of no time":     {replace("168h", "0s"), `grace: "0s" is not a duration such as 720h`},
		"grace in days":        {replace("168h", "7d"), `grace: "7d" is not a duration`},
		"usage by name":        {replace("1.3.6.1.4.1.311.10.3.6", "codeSigning"), `usages: "codeSigning" is not an object identifier`},
		"empty subject":        {replace("CN=release", ""), "subject: empty"},
		"empty grace":          {replace("168h", ""), `grace: "" is not a duration`},
		"empty memory":         {replace("2GiB", ""), `memory: "" is not a size`},
		"empty version":        {replace("1.4.0", ""), `minimum_version: "" is not a semantic version`},
		"no CPUs":              {replace("cpus = 4", "cpus = 0"), "claims: cpus: 0: must be at least 1"},
		"negative memory":      {replace("2GiB", "-1"), `claims: memory: "-1" is not a size`},
		"unknown claim":        {replace("cpus = 4", "cores = 4"), `line 10: unknown key "identity.cores"`},
		"no one's list":        {strings.Replace(replace(`signer = "security team"`, `signer = "x"`), "\n\n[[bundle]]", "\nbundles = [\"x\"]\n\n[[bundle]]", 1), `revocation: signer: no identity has the name "x"`},
		"list of any age":      {replace(`max_age = "720h"`, ""), `revocation: max_age: "" is not a duration`},
		"no list":              {replace(`list = "revoked"`, ""), "revocation: list: empty"},
		"list that is missing": {replace(`"revoked"`, `"gone"`), `revocation: "gone": file does not exist`},
		"signs nothing":        {replace(`signer = "security team"`, `signer = "key"`), `identity 3 ("security team"): bundles: empty`},
		"rule for nothing":     {replace(`names = ["web-*"]`, "names = []"), "bundle 1 ([]): names: empty"},
		"rule of no name":      {replace(`names = ["web-*"]`, ""), "names: empty"},
		"rule's bad pattern":   {replace(`names = ["web-*"]`, `names = ["["]`), "names: \"[\": syntax error"},
		"threshold of nobody":  {replace("threshold = 2", "threshold = 0"), "threshold: 0: must be at least 1"},
		"no version number":    {replace("1.4.0", "1.4"), `minimum_version: "1.4" is not a semantic version`},
		"version with a v":     {replace("1.4.0", "v1.4.0"), `minimum_version: "v1.4.0"`},
		"large":                {good + strings.Repeat("#", MaxSize), "larger"},
	}
	for line := range strings.Lines(good) {
		if key, _, ok := strings.Cut(line, " = "); ok {
			tests["misspelt "+line] = [2]string{replace(line, "x"+line), "x" + key + `"`}
		}
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
			lists := p.Revocation != nil && p.Revocation.Signer.Name == i.Name
			if (i.Key == nil) == (i.Certificates == nil) || len(i.Bundles) == 0 && !lists || i.Grace < 0 || i.Claims.CPUs < 0 || i.Claims.Memory < 0 {
				t.Errorf("took %+v", i)
			}
		}
		for _, r := range p.Rules {
			if r.Threshold < 1 || len(r.Bundles) == 0 || r.MinimumVersion != "" && !Older("", r.MinimumVersion) {
				t.Errorf("took %+v", r)
			}
		}
		if r := p.Revocation; r != nil && (r.MaxAge <= 0 || r.Signer.Name == "") {
			t.Errorf("took %+v", r)
		}
	})
}

// TestDocs holds docs/trust.md to the code: its policy is one, with every key.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```toml\n")
	example, _, _ := strings.Cut(rest, "```")
	root := testkey.NewAuthority(t).Root()
	p, err := Parse([]byte(example), func(path string) ([]byte, error) {
		if strings.HasSuffix(path, ".pub") {
			return cryptoutils.MarshalPublicKeyToPEM(root.PublicKey)
		}
		return cryptoutils.MarshalCertificateToPEM(root)
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"redis": 1, "web-1": 2, "web": 0} {
		if may, _ := p.For(Bundle{Name: name}); len(may) != want {
			t.Errorf("%s: %+v", name, may)
		}
	}
	var check func(of reflect.Type)
	check = func(of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			if key := f.Tag.Get("toml"); !strings.Contains(example, key) || key != strings.ToLower(key) {
				t.Errorf("docs/trust.md says nothing of %q", key)
			}
			inner := f.Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				check(inner)
			}
		}
	}
	check(reflect.TypeFor[document]())
}
