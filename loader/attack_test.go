// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/trust"
	"github.com/tenon-build/tenon/testdata/testpe"
)

// world is a host with a policy that accepts a bundle: version 1.4.0 of "web",
// which "ours" signed. It has seen that, and list 2 of "theirs".
type world struct {
	path, older, foreign string
	digest               string
	list                 *revocation.List
	policy               func() Policy // a new one each time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	signed := func(version, body string) (path, digest string) {
		path, d := newBundleOf(t, testpe.Image([]byte(body)), "", func(m *manifest.Manifest) { m.BundleVersion = version })
		attach(t, path, keyOf(t, "ours"))
		return path, d.String()
	}
	w.path, w.digest = signed("1.4.0", "")
	w.older, _ = signed("1.3.9", "")
	w.foreign, _ = signed("1.4.0", "another kernel")
	unrelated := trust.OfBundle("sha256:" + strings.Repeat("0", 64))
	unrelated.Reason = "test"
	w.list = (*revocation.List)(nil).Next(time.Now(), 24*time.Hour).Next(time.Now(), 24*time.Hour, unrelated)
	state := `{"version":1,"bundles":{},"revocationList":{"number":0,"digest":""}}`
	team, list := identity(t, "theirs"), w.sign(t, "theirs", w.list)
	w.policy = func() Policy {
		p := policyOf(identity(t, "ours", "web"), team)
		p.Trust.Rules = []trust.Rule{{Bundles: []string{"*"}, Threshold: 1, MinimumVersion: "1.0.0"}}
		p.Trust.Revocation = &trust.Revocation{List: list, Signer: team, MaxAge: 24 * time.Hour}
		p.State = &State{Dir: t.TempDir()}
		if err := os.WriteFile(p.State.Dir+"/trust.json", []byte(state), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := w.policy()
	accepted(t, w.path, first)
	state = string(must(os.ReadFile(first.State.Dir + "/trust.json")))
	return w
}

func (w *world) sign(t *testing.T, by string, l *revocation.List) []byte {
	t.Helper()
	data, err := revocation.Sign(keyOf(t, by), l)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// attack changes a bundle or a policy, so that the bundle has to be refused, for a
// reason that names the object.
type attack struct {
	name, object string
	bundle       func(f *forged)
	policy       func(p *Policy)
}

// TestAttacks: what is not as it was when it was signed and accepted is refused,
// whoever changed what.
func TestAttacks(t *testing.T) {
	w := newWorld(t)
	all := slices.Concat(w.blobAttacks(t), w.encodingAttacks(t), w.signerAttacks(t), w.bundleAttacks(t), w.policyAttacks(t), w.listAttacks(t))
	t.Logf("%d attacks", len(all))
	if len(all) < 200 {
		t.Errorf("%d attacks", len(all))
	}
	names := map[string]bool{}
	for _, a := range all {
		if names[a.name] {
			t.Errorf("%s: twice", a.name)
		}
		names[a.name] = true
		path, policy := w.path, w.policy()
		if a.bundle != nil {
			f := takeApart(t, w.path)
			a.bundle(f)
			path = f.pack(t)
		}
		if a.policy != nil {
			a.policy(&policy)
		}
		v, err := Verify(t.Context(), path, policy, nil)
		if err == nil {
			v.Close()
			t.Errorf("%s: taken", a.name)
			continue
		}
		_, reason, _ := strings.Cut(err.Error(), "refused: ")
		if !errors.Is(err, ErrRefused) || !strings.Contains(reason, a.object) || strings.Contains(reason, "\n") {
			t.Errorf("%s: got %v, want %q", a.name, err, a.object)
		}
	}
	accepted(t, w.path, w.policy()) // what made the list is left as it was
}

// kinds are the names of the kinds of signatures, by place among the referrers.
func (w *world) kinds(t *testing.T) []string {
	var out []string
	for _, r := range takeApart(t, w.path).referrers {
		out = append(out, signature.KindOf(r.oci["artifactType"].(string)).Name)
	}
	return out
}

// replace puts other bytes in the place of one signature.
func replace(i int, data []byte) func(f *forged) {
	return func(f *forged) { f.referrers[i].data = data }
}

// blobAttacks change bytes of each signature, and cut and double it.
func (w *world) blobAttacks(t *testing.T) (out []attack) {
	sample := takeApart(t, w.path).referrers
	for i, kind := range w.kinds(t) {
		data := sample[i].data
		object := fmt.Sprintf(`no %s signature of "ours": sha256:`, kind)
		hint := [2]int{-1, -1} // sigstore's hint at the key is not signed, and means nothing where it is none
		if _, rest, ok := bytes.Cut(data, []byte(`"hint":"`)); ok {
			hint[0] = len(data) - len(rest)
			hint[1] = hint[0] + bytes.IndexByte(rest, '"')
		}
		for step := range 32 {
			at := step * (len(data) - 1) / 31
			if at >= hint[0] && at < hint[1] {
				continue
			}
			out = append(out, attack{name: fmt.Sprintf("%s: bit of byte %d", kind, at), object: object, bundle: replace(i, flipped(data, at))})
		}
		for _, cut := range []int{1, 2, len(data) / 2, len(data) - 1} {
			out = append(out, attack{name: fmt.Sprintf("%s: %d bytes less", kind, cut), object: object, bundle: replace(i, data[:len(data)-cut])})
		}
		out = append(out, attack{name: kind + ": twice in one", object: object, bundle: replace(i, append(bytes.Clone(data), data...))})
	}
	return out
}

// element is one of DER. A primitive one has no elements in it.
type element struct {
	tag      byte
	body     []byte
	elements []*element
	long     bool // a length with one byte more than it needs
	open     bool // BER's indefinite length
}

func parseDER(t *testing.T, der []byte) (out []*element) {
	t.Helper()
	for in := cryptobyte.String(der); !in.Empty(); {
		var body cryptobyte.String
		var tag asn1.Tag
		if !in.ReadAnyASN1(&body, &tag) {
			t.Fatalf("not DER: %x", in)
		}
		e := &element{tag: byte(tag), body: body}
		if tag&0x20 != 0 {
			e.elements = parseDER(t, body)
		}
		out = append(out, e)
	}
	return out
}

func (e *element) encode() []byte {
	body := e.body
	if e.elements != nil {
		body = nil
		for _, inner := range e.elements {
			body = append(body, inner.encode()...)
		}
	}
	if e.open {
		return append(append([]byte{e.tag, 0x80}, body...), 0, 0)
	}
	var length []byte
	for n := len(body); n > 0; n >>= 8 {
		length = append([]byte{byte(n)}, length...)
	}
	if e.long && len(body) > 127 {
		length = append([]byte{0}, length...)
	}
	if len(body) > 127 || e.long {
		length = append([]byte{0x80 | byte(len(length))}, length...)
	}
	if len(length) == 0 {
		length = []byte{0}
	}
	return append(append([]byte{e.tag}, length...), body...)
}

// walk visits e and all in it.
func (e *element) walk(visit func(*element)) {
	visit(e)
	for _, inner := range e.elements {
		inner.walk(visit)
	}
}

// encodingAttacks say the same in BER that is not DER, and name other objects.
func (w *world) encodingAttacks(t *testing.T) (out []attack) {
	sample := takeApart(t, w.path).referrers
	for i, kind := range w.kinds(t) {
		if kind == "sigstore" {
			continue
		}
		object := fmt.Sprintf(`no %s signature of "ours": sha256:`, kind)
		root := parseDER(t, sample[i].data)[0]
		if !bytes.Equal(root.encode(), sample[i].data) {
			t.Fatal("DER is not what it was")
		}
		n := 0
		root.walk(func(e *element) {
			n++
			add := func(what string, change func()) {
				before := *e
				change()
				out = append(out, attack{name: fmt.Sprintf("%s: element %d, tag %#x: %s", kind, n, e.tag, what), object: object, bundle: replace(i, root.encode())})
				*e = before
			}
			if n%3 == 0 || n < 12 { // the outer ones, and some of the others
				add("length with a zero", func() { e.long = true })
				if e.elements != nil {
					add("indefinite length", func() { e.open = true })
				}
			}
			switch {
			case e.tag == 0x06:
				add("another object", func() { e.body = flipped(e.body, len(e.body)-1) })
			case e.tag == 0x04 && len(e.body) == 32: // the message's digest, and the image's
				add("another digest", func() { e.body = flipped(e.body, 0) })
				add("in parts", func() { e.tag, e.elements = 0x24, []*element{{tag: 4, body: e.body[:16]}, {tag: 4, body: e.body[16:]}} })
			case e.tag == 0x02 && len(e.body) == 1:
				add("another number", func() { e.body = []byte{e.body[0] ^ 2} })
				add("number with a zero", func() { e.body = []byte{0, e.body[0]} })
			}
		})
	}
	return out
}

// signerAttacks put several signers into one PKCS#7, of which a kernel skips one
// that is revoked.
func (w *world) signerAttacks(t *testing.T) (out []attack) {
	path, _ := newBundleOf(t, testpe.Image(nil), "", func(m *manifest.Manifest) { m.BundleVersion = "1.4.0" })
	attach(t, path, keyOf(t, "theirs"))
	ours, theirs := takeApart(t, w.path).referrers, takeApart(t, path).referrers
	revoke := func(p *Policy) {
		e := trust.OfCertificate(keyOf(t, "theirs").Chain[0])
		e.Reason = "stolen"
		p.Trust.Revocation.Signer = identity(t, "ours")
		p.Trust.Revocation.List = w.sign(t, "ours", w.list.Next(time.Now(), time.Hour, e))
		p.State = nil
	}
	for i, kind := range w.kinds(t) {
		if kind == "sigstore" {
			continue
		}
		// ContentInfo, [0], SignedData: version, algorithms, content, certificates, signers
		merge := func(first, second []byte) []byte {
			a, b := parseDER(t, first)[0], parseDER(t, second)[0]
			into, from := a.elements[1].elements[0], b.elements[1].elements[0]
			for _, part := range []int{3, 4} {
				into.elements[part].elements = append(into.elements[part].elements, from.elements[part].elements...)
			}
			return a.encode()
		}
		const object = "more than one signer"
		out = append(out,
			attack{kind + ": the same signer twice", object, replace(i, merge(ours[i].data, ours[i].data)), nil},
			attack{kind + ": a second signer", object, replace(i, merge(ours[i].data, theirs[i].data)), nil},
			attack{kind + ": a second signer, revoked", object, replace(i, merge(ours[i].data, theirs[i].data)), revoke},
			attack{kind + ": a first signer, revoked", object, replace(i, merge(theirs[i].data, ours[i].data)), revoke},
		)
	}
	return out
}

// bundleAttacks give the host another bundle, or signatures of another.
func (w *world) bundleAttacks(t *testing.T) (out []attack) {
	older, foreign := takeApart(t, w.older), takeApart(t, w.foreign)
	out = append(out,
		attack{"older version", `bundle "web": version "1.3.9" is older than what this host has seen: "1.4.0"`, func(f *forged) { *f = *older }, nil},
		attack{"older version, its number forged", "sigstore signature", func(f *forged) { *f = *takeApart(t, w.older); f.config["bundleVersion"] = "1.4.1" }, nil},
		attack{"no version", `version ""`, func(f *forged) { delete(f.config, "bundleVersion") }, nil},
		attack{"version that is none", "bundleVersion", func(f *forged) { f.config["bundleVersion"] = "latest" }, nil},
		attack{"another name", "the policy lets nobody sign for", func(f *forged) { f.config["name"] = "redis" }, nil},
		attack{"more CPUs", "sigstore signature", func(f *forged) { f.config["claims"].(map[string]any)["cpus"].(map[string]any)["max"] = 64 }, nil},
	)
	for i, kind := range w.kinds(t) {
		out = append(out,
			attack{kind + " of a foreign bundle", kind + " signature", func(f *forged) { f.referrers[i] = foreign.referrers[i] }, nil},
			attack{kind + " gone", fmt.Sprintf("%q made no %s signature", "ours", kind), func(f *forged) { f.referrers = slices.Delete(f.referrers, i, i+1) }, nil},
			attack{kind + " in the place of the next", " signature", func(f *forged) { f.referrers[i].data = f.referrers[(i+1)%len(f.referrers)].data }, nil},
		)
	}
	// The statement and the image are the same in both versions.
	sigstore := slices.Index(w.kinds(t), "sigstore")
	return append(out, attack{"sigstore of the older version", "sigstore signature", func(f *forged) { f.referrers[sigstore] = older.referrers[sigstore] }, nil})
}

// policyAttacks are hosts that would not have accepted the bundle.
func (w *world) policyAttacks(t *testing.T) (out []attack) {
	ours := func(change func(i *trust.Identity)) func(p *Policy) {
		return func(p *Policy) { change(&p.Trust.Identities[0]) }
	}
	rule := func(r trust.Rule) func(p *Policy) {
		return func(p *Policy) { p.Trust.Rules = append(p.Trust.Rules, r) }
	}
	usage, err := x509.ParseOID("1.3.6.1.4.1.311.10.3.6")
	if err != nil {
		t.Fatal(err)
	}
	one := []string{"web"}
	for _, a := range []attack{
		{"identities swapped", `no sigstore signature of "ours"`, nil, func(p *Policy) {
			a, b := &p.Trust.Identities[0], &p.Trust.Identities[1]
			a.Certificates, b.Certificates = b.Certificates, a.Certificates
		}},
		{"names swapped", `the policy lets nobody sign for "web"`, nil, ours(func(i *trust.Identity) { i.Bundles = []string{"redis"} })},
		{"no identities", `the policy lets nobody sign for "web"`, nil, func(p *Policy) { p.Trust.Identities = nil }},
		{"an identity that is nobody", "not exactly one of", nil, ours(func(i *trust.Identity) { i.Certificates = nil })},
		{"another's key", "signed by the key sha256:", nil, ours(func(i *trust.Identity) { i.Certificates, i.Key = nil, keyOf(t, "theirs").Public() })},
		{"another subject", `"CN=ours signing" has not the subject "CN=theirs signing"`, nil, ours(func(i *trust.Identity) { i.Subject = "CN=theirs signing" })},
		{"another usage", `"CN=ours signing" has not the extended key usage`, nil, ours(func(i *trust.Identity) { i.Usages = []x509.OID{usage} })},
		{"fewer CPUs", "it claims up to 4 CPUs", nil, ours(func(i *trust.Identity) { i.Claims.CPUs = 3 })},
		{"less memory", "it claims up to 134217728 bytes", nil, ours(func(i *trust.Identity) { i.Claims.Memory = 128<<20 - 1 })},
		{"no devices", `a device of the kind "net"`, nil, ours(func(i *trust.Identity) { i.Claims.Devices = []string{} })},
		{"two wanted", "the policy wants 2 identities", nil, rule(trust.Rule{Bundles: one, Threshold: 2})},
		{"two wanted, one did", `1 may: "theirs"`, nil, func(p *Policy) {
			p.Trust.Identities[1].Bundles, p.Trust.Identities[1].Claims.CPUs = one, 1
			rule(trust.Rule{Bundles: one, Threshold: 2})(p)
		}},
		{"two wanted, one key", "with keys of their own", nil, func(p *Policy) {
			twin := p.Trust.Identities[0]
			twin.Name = "twin"
			p.Trust.Identities = append(p.Trust.Identities, twin)
			rule(trust.Rule{Bundles: one, Threshold: 2})(p)
		}},
		{"a newer version wanted", `version "1.4.0" is too old: the policy wants at least "1.4.1"`, nil, rule(trust.Rule{Bundles: one, MinimumVersion: "1.4.1"})},
		{"a newer prerelease wanted", "too old", nil, rule(trust.Rule{Bundles: []string{"w*"}, MinimumVersion: "1.5.0-rc.1"})},
	} {
		a.name = "policy: " + a.name
		out = append(out, a)
	}
	return out
}

// listAttacks give the host another revocation list, or revoke what the bundle
// hangs on.
func (w *world) listAttacks(t *testing.T) (out []attack) {
	good := w.sign(t, "theirs", w.list)
	now := time.Now()
	list := func(name, object string, data []byte) {
		out = append(out, attack{"list: " + name, object, nil, func(p *Policy) { p.Trust.Revocation.List = data }})
	}
	const object = "revocation list"
	for step := range 32 {
		at := step * (len(good) - 1) / 31
		list(fmt.Sprintf("bit of byte %d", at), object, flipped(good, at))
	}
	for _, cut := range []int{1, 30, len(good) / 2, len(good)} {
		list(fmt.Sprintf("%d bytes less", cut), object, good[:len(good)-cut])
	}
	list("twice", object, append(bytes.Clone(good), good...))
	list("signed by whom the policy does not name", "unknown authority", w.sign(t, "ours", w.list))
	list("older than seen", "revocation list: number 1 is older than what this host has seen: 2", w.sign(t, "theirs", (*revocation.List)(nil).Next(now, time.Hour)))
	list("another of the same number", "revocation list: number 2 is another list", w.sign(t, "theirs", (*revocation.List)(nil).Next(now, time.Hour).Next(now, time.Hour)))
	list("expired", "list 3 expired on", w.sign(t, "theirs", w.list.Next(now.Add(-2*time.Hour), time.Hour)))
	list("older than the policy wants", "list 3 is older than 24h0m0s", w.sign(t, "theirs", w.list.Next(now.Add(-25*time.Hour), 48*time.Hour)))
	list("of the future", "list 3 is of the future", w.sign(t, "theirs", w.list.Next(now.Add(time.Hour), time.Hour)))
	key := keyOf(t, "ours")
	for name, e := range map[string]trust.Revoked{
		"leaf": trust.OfCertificate(key.Chain[0]), "leaf's key": trust.OfKey(key.Public()),
		"CA": trust.OfCertificate(key.Chain[1]), "CA's key": trust.OfKey(key.Chain[1].PublicKey),
		"bundle": trust.OfBundle(w.digest),
	} {
		e.Reason = "laptop stolen"
		list("revokes the "+name, fmt.Sprintf("%s %s was revoked on %s: laptop stolen", e.Kind, e.Digest, now.UTC().Format(time.DateOnly)), w.sign(t, "theirs", w.list.Next(now, time.Hour, e)))
	}
	return out
}

// What the host knows of itself is an accident when it cannot be read, and no
// verdict: nothing is accepted either.
func TestStateAccidents(t *testing.T) {
	w := newWorld(t)
	for name, damage := range map[string]func(dir string) error{
		"no directory": os.RemoveAll,
		"not JSON":     func(dir string) error { return os.WriteFile(dir+"/trust.json", []byte("x"), 0o644) },
		"empty":        func(dir string) error { return os.WriteFile(dir+"/trust.json", nil, 0o644) },
		"null": func(dir string) error {
			return os.WriteFile(dir+"/trust.json", []byte(`{"version":1,"bundles":null}`), 0o644)
		},
		"of a later program": func(dir string) error {
			return os.WriteFile(dir+"/trust.json", []byte(`{"version":2,"bundles":{}}`), 0o644)
		},
		"version that is none": func(dir string) error {
			return os.WriteFile(dir+"/trust.json", []byte(`{"version":1,"bundles":{"web":"x"}}`), 0o644)
		},
		"large": func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/trust.json", nil, 0o644), os.Truncate(dir+"/trust.json", 1<<30))
		},
		"a FIFO in its place":      func(dir string) error { return unix.Mkfifo(dir+"/trust.json", 0o644) },
		"a directory in its place": func(dir string) error { return os.Mkdir(dir+"/trust.json", 0o755) },
		"a file in the directory's place": func(dir string) error {
			return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o644))
		},
	} {
		policy := w.policy()
		policy.State = &State{Dir: t.TempDir() + "/state"}
		if err := errors.Join(os.Mkdir(policy.State.Dir, 0o755), damage(policy.State.Dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(t.Context(), w.path, policy, nil); err == nil || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), policy.State.Dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
