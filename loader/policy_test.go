// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/trust"
	"github.com/tenon-build/tenon/testdata/testbundle"
	"github.com/tenon-build/tenon/testdata/testpe"
)

// accepted verifies a bundle and returns who signed it and the warnings.
func accepted(t *testing.T, path string, policy Policy) (identity string, warnings []Check) {
	t.Helper()
	v, err := Verify(t.Context(), path, policy, func(c Check) {
		if c.Result == CheckWarning {
			warnings = append(warnings, c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	return v.Identity(), warnings
}

func TestThreshold(t *testing.T) {
	path, _ := newBundleOf(t, testpe.Image(nil), "", nil)
	attach(t, path, keyOf(t, "ours"))
	policy := policyOf(identity(t, "ours", "web"), identity(t, "theirs", "*"), trust.Identity{Name: "other", Key: keyOf(t, "ours").Public(), Bundles: []string{"db"}})
	policy.Trust.Rules = []trust.Rule{{Bundles: []string{"web"}, Threshold: 2}}
	if _, err := Verify(t.Context(), path, policy, nil); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), `wants 2 identities with keys of their own to sign for "web", 1 did: no sigstore signature of "theirs"`) {
		t.Errorf("one: %v", err)
	}
	attach(t, path, keyOf(t, "theirs"), "application/vnd.tenon.signature.statement.v1", "application/vnd.dev.sigstore.bundle.v0.3+json")
	if _, err := Verify(t.Context(), path, policy, nil); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), `no authenticode signature of "theirs"`) {
		t.Errorf("one and most of another: %v", err)
	}
	attach(t, path, keyOf(t, "theirs"))
	if who, _ := accepted(t, path, policy); who != "ours, theirs" {
		t.Errorf("got %q", who)
	}
	policy.Trust.Rules[0].Threshold = 3
	if _, err := Verify(t.Context(), path, policy, nil); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "2 may") {
		t.Errorf("three: %v", err)
	}
}

// shortLived is a key whose certificate expired an hour ago, and its CA.
func shortLived(t *testing.T) (*signer.Key, *x509.Certificate) {
	t.Helper()
	issue := func(c, parent *x509.Certificate, key, by *rsa.PrivateKey) *x509.Certificate {
		c.SerialNumber, c.BasicConstraintsValid, c.NotBefore = big.NewInt(1), true, time.Now().Add(-48*time.Hour)
		return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by))))
	}
	caKey, key := must(rsa.GenerateKey(rand.Reader, 2048)), must(rsa.GenerateKey(rand.Reader, 2048))
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "root"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	ca := issue(root, root, caKey, caKey)
	leaf := issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "leaf"}, NotAfter: time.Now().Add(-time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}, ca, key, caKey)
	return &signer.Key{Signer: key, Chain: []*x509.Certificate{leaf, ca}}, ca
}

func TestGrace(t *testing.T) {
	key, ca := shortLived(t)
	path, _ := newBundleOf(t, testpe.Image(nil), "", nil)
	attach(t, path, key)
	policy := policyOf(trust.Identity{Name: "ci", Certificates: []*x509.Certificate{ca}, Bundles: []string{"web"}})
	if _, err := Verify(t.Context(), path, policy, nil); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), `certificate "CN=leaf" expired on`) {
		t.Errorf("without a grace: %v", err)
	}
	policy.Trust.Identities[0].Grace = 2 * time.Hour
	_, warnings := accepted(t, path, policy)
	if len(warnings) != 3 || !strings.Contains(fmt.Sprint(warnings), `certificate "CN=leaf" expired on`) || !strings.Contains(fmt.Sprint(warnings), `it counts for "ci" in the grace of 2h0m0s`) {
		t.Errorf("%+v", warnings)
	}
}

// A revoked signer takes nothing from the others.
func TestRevokedSigner(t *testing.T) {
	path, policy := signedBundle(t, nil)
	attach(t, path, keyOf(t, "theirs"))
	revoked := trust.OfKey(keyOf(t, "theirs").Public())
	revoked.Reason = "stolen"
	list := (*revocation.List)(nil).Next(time.Now(), time.Hour, revoked)
	ours := identity(t, "ours", "web")
	policy.Trust.Identities = append(policy.Trust.Identities, identity(t, "theirs", "web"))
	policy.Trust.Revocation = &trust.Revocation{List: must(revocation.Sign(keyOf(t, "ours"), list)), Signer: ours, MaxAge: time.Hour}
	var failed int
	v, err := Verify(t.Context(), path, policy, func(c Check) {
		if c.Result == CheckFailed && strings.Contains(c.Detail, "stolen") {
			failed++
		}
	})
	if err != nil || v.Identity() != "ours" || failed != 3 {
		t.Fatalf("%v, %d failed", err, failed)
	}
	defer v.Close()
	if _, warnings := accepted(t, path, policy); len(warnings) != 1 || warnings[0].Object != "state" {
		t.Errorf("without a state: %+v", warnings)
	}
}

func TestState(t *testing.T) {
	bundleOf := func(version string) string {
		path, _ := newBundleOf(t, testpe.Image(nil), "", func(m *manifest.Manifest) { m.BundleVersion = version })
		attach(t, path, keyOf(t, "ours"))
		return path
	}
	none, one, two, release := bundleOf(""), bundleOf("1.0.0"), bundleOf("1.0.1-rc.1"), bundleOf("1.0.1")
	policy := policyOf(identity(t, "ours", "web"))
	policy.State = &State{Dir: t.TempDir()}
	asks := policy
	asks.State = &State{Dir: policy.State.Dir, ReadOnly: true}
	left := func() string {
		data, err := os.ReadFile(filepath.Join(policy.State.Dir, "trust.json"))
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	refused := func(path string, with Policy) {
		t.Helper()
		before := left()
		if _, err := Verify(t.Context(), path, with, nil); !errors.Is(err, ErrRefused) || !errors.Is(err, ErrRollback) {
			t.Errorf("got %v", err)
		}
		if left() != before {
			t.Errorf("remembered: %s", left())
		}
	}
	accepted(t, none, policy) // where no version was seen
	accepted(t, two, asks)
	if !strings.Contains(left(), "no such file") {
		t.Errorf("remembered, though only asked: %s", left())
	}
	accepted(t, one, policy)
	accepted(t, one, policy)
	accepted(t, two, policy)
	refused(one, policy)
	refused(one, asks)
	refused(none, policy)
	accepted(t, release, policy)
	refused(two, policy)
	if want := `{"version":1,"bundles":{"web":"1.0.1"},"revocationList":{"number":0,"digest":""}}` + "\n"; left() != want {
		t.Errorf("got %s", left())
	}
	// Who is not trusted leaves nothing.
	untrusted := policyOf(identity(t, "theirs", "web"))
	untrusted.State = &State{Dir: t.TempDir()}
	if _, err := Verify(t.Context(), release, untrusted, nil); !errors.Is(err, ErrUntrusted) {
		t.Errorf("got %v", err)
	}
	if files := must(os.ReadDir(untrusted.State.Dir)); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
	both := Policy{AllowUnsigned: true, State: policy.State}
	if _, err := Verify(t.Context(), release, both, nil); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("a policy that contradicts itself: %v", err)
	}
}

// A list counts from when it was seen, whatever it said of the bundle.
func TestListIsRemembered(t *testing.T) {
	path, policy := signedBundle(t, nil)
	ours := identity(t, "ours", "web")
	stolen := trust.OfKey(keyOf(t, "ours").Public())
	stolen.Reason = "stolen"
	first := (*revocation.List)(nil).Next(time.Now(), time.Hour)
	policy.Trust.Revocation = &trust.Revocation{Signer: identity(t, "theirs"), MaxAge: time.Hour}
	policy.State = &State{Dir: t.TempDir()}
	use := func(l *revocation.List) error {
		policy.Trust.Revocation.List = must(revocation.Sign(keyOf(t, "theirs"), l))
		v, err := Verify(t.Context(), path, policy, nil)
		if err == nil {
			err = v.Close()
		}
		return err
	}
	policy.Trust.Identities = []trust.Identity{ours}
	for n, test := range []struct {
		list *revocation.List
		want error
	}{{first, nil}, {first.Next(time.Now(), time.Hour, stolen), ErrUntrusted}, {first, ErrRollback}} {
		if err := use(test.list); !errors.Is(err, test.want) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// Whoever the last list revoked signs none that leaves him out.
func TestRevokedSignsNoList(t *testing.T) {
	path, policy := signedBundle(t, nil)
	thief, team := keyOf(t, "theirs"), keyOf(t, "ours")
	both := identity(t, "theirs")
	both.Certificates = append(both.Certificates, identity(t, "ours").Certificates...)
	policy.Trust.Revocation = &trust.Revocation{Signer: both, MaxAge: time.Hour}
	policy.State = &State{Dir: t.TempDir()}
	stolen := trust.OfCertificate(thief.Chain[0])
	stolen.Reason = "stolen"
	first := (*revocation.List)(nil).Next(time.Now(), time.Hour)
	forged := first.Next(time.Now(), time.Hour).Next(time.Now(), time.Hour)
	policy.Trust.Revocation.List = must(revocation.Sign(thief, first))
	accepted(t, path, policy)
	policy.Trust.Revocation.List = must(revocation.Sign(team, first.Next(time.Now(), time.Hour, stolen)))
	accepted(t, path, policy)
	accepted(t, path, policy)
	policy.Trust.Revocation.List = must(revocation.Sign(thief, forged))
	for _, readOnly := range []bool{false, true} {
		policy.State.ReadOnly = readOnly
		if _, err := Verify(t.Context(), path, policy, nil); !errors.Is(err, ErrRefused) || !errors.Is(err, trust.ErrRevoked) || !strings.Contains(err.Error(), "stolen") {
			t.Errorf("read only %t: %v", readOnly, err)
		}
	}
	policy.State.ReadOnly = false
	policy.Trust.Revocation.List = must(revocation.Sign(team, forged)) // who is trusted may take it back
	accepted(t, path, policy)
}

// Nobody who can only read the directory keeps us waiting, and whoever does so does
// it no longer than the context lasts.
func TestStateLock(t *testing.T) {
	s := &State{Dir: t.TempDir()}
	hold := func(path string) {
		f := must(os.Open(path))
		t.Cleanup(func() { f.Close() })
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
	}
	hold(s.Dir)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.accepted(ctx, testbundle.Manifest()); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(s.Dir, "trust.lock")
	if info := must(os.Stat(lock)); info.Mode() != 0o600 {
		t.Errorf("mode %s", info.Mode())
	}
	hold(lock)
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.accepted(ctx, testbundle.Manifest()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), lock) {
		t.Errorf("got %v", err)
	}
	if err := s.checkVersion(ctx, testbundle.Manifest()); err != nil { // who only asks needs no lock
		t.Error(err)
	}
}

// However many remember at once, the highest is what stays.
func TestStateTogether(t *testing.T) {
	s := &State{Dir: t.TempDir()}
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() {
			m := testbundle.Manifest()
			m.Name, m.BundleVersion = fmt.Sprint("app", n%2), fmt.Sprintf("1.0.%d", n)
			if err := s.accepted(t.Context(), m); err != nil && !errors.Is(err, ErrRollback) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	have, err := s.read()
	if err != nil || have.Bundles["app0"] != "1.0.18" || have.Bundles["app1"] != "1.0.19" {
		t.Errorf("%+v, %v", have, err)
	}
	if files := must(os.ReadDir(s.Dir)); len(files) != 2 { // and the lock
		t.Errorf("left behind: %v", files)
	}
}
