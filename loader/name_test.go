// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/signer/flock"
	"github.com/tenon-build/tenon/signer/ownership"
	"github.com/tenon-build/tenon/signer/trust"
	"github.com/tenon-build/tenon/testdata/testbundle"
	"github.com/tenon-build/tenon/testdata/testpe"
)

// A validly signed bundle with another name than was asked for is refused.
func TestNameThatWasAskedFor(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer s.Close()
	path, _ := newBundleOf(t, testpe.Image(nil), "", func(m *manifest.Manifest) { m.Name = "debug-shell" })
	attach(t, path, keyOf(t, "ours"))
	b, err := bundle.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	for _, repository := range []string{"/team/payments", "/team/debug-shell"} {
		if _, err := b.Push(t.Context(), host+repository+":1.4", nil); err != nil {
			t.Fatal(err)
		}
	}
	reference := func(names ...string) []trust.Reference {
		return []trust.Reference{{Repositories: []string{host + "/team/*"}, Bundles: names}}
	}
	for _, test := range []struct {
		name, ref, expect string
		rules             []trust.Reference
		good              bool
	}{
		{"another name", host + "/team/payments:1.4", "", nil, false},
		{"another name, by digest", host + "/team/payments@" + b.Digest.String(), "", nil, false},
		{"its name", host + "/team/debug-shell:1.4", "", nil, true},
		{"--expect-name", "docker://" + host + "/team/payments:1.4", "debug-shell", nil, true},
		{"another --expect-name", host + "/team/debug-shell:1.4", "payments", nil, false},
		{"the policy's rule", host + "/team/payments:1.4", "", reference("payments", "debug-*"), true},
		{"not in the policy's rule", host + "/team/debug-shell:1.4", "debug-shell", reference("payments"), false},
		{"a file", path, "", nil, true},
		{"another --expect-name of a file", path, "payments", nil, false},
	} {
		policy := policyOf(identity(t, "ours", "*"))
		policy.ExpectName, policy.Trust.References = test.expect, test.rules
		v, err := Verify(t.Context(), test.ref, policy, nil)
		if err == nil {
			v.Close()
		}
		if (err == nil) != test.good || err != nil && (!errors.Is(err, ErrRefused) || !errors.Is(err, trust.ErrName) || !strings.Contains(err.Error(), `its name is "debug-shell"`)) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	// Of an unsigned one, only what was said is compared.
	for expect, good := range map[string]bool{"": true, "debug-shell": true, "payments": false} {
		v, err := Verify(t.Context(), host+"/team/payments:1.4", Policy{AllowUnsigned: true, ExpectName: expect}, nil)
		if err == nil {
			v.Close()
		}
		if (err == nil) != good {
			t.Errorf("unsigned, expected %q: %v", expect, err)
		}
	}
}

// A file in the working directory does not take the place of a bundle in a registry: of a file,
// nobody asked for a name.
func TestFileNamedAsRegistry(t *testing.T) {
	path, _ := newBundleOf(t, testpe.Image(nil), "", func(m *manifest.Manifest) { m.Name = "debug-shell" })
	attach(t, path, keyOf(t, "ours"))
	t.Chdir(t.TempDir())
	const ref = "registry.example/team/payments:1.4"
	for _, local := range []string{ref, "web.tenon", "out/web.tenon", ".hidden/web"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(local), 0o755), os.CopyFS(local, os.DirFS(path))); err != nil {
			t.Fatal(err)
		}
	}
	policy := policyOf(identity(t, "ours", "*"))
	_, err := Verify(t.Context(), ref, policy, nil)
	if !errors.Is(err, bundle.ErrAmbiguous) {
		t.Errorf("got %v, want %v", err, bundle.ErrAmbiguous)
	}
	if _, err := bundle.Absolute(ref); !errors.Is(err, bundle.ErrAmbiguous) {
		t.Errorf("absolute: got %v, want %v", err, bundle.ErrAmbiguous)
	}
	for _, local := range []string{"./" + ref, "oci:" + ref, "web.tenon", "out/web.tenon", ".hidden/web"} {
		absolute, err := bundle.Absolute(local)
		if err != nil || !strings.Contains(absolute, "/"+filepath.Base(local)) || absolute == local {
			t.Errorf("%s: %s, %v", local, absolute, err)
		}
		v, err := Verify(t.Context(), local, policy, nil)
		if err != nil {
			t.Errorf("%s: %v", local, err)
			continue
		}
		v.Close()
	}
}

// What others can write to decides nothing that is remembered, or run as root.
func TestFilesThatOthersCanChange(t *testing.T) {
	path, _ := newBundleOf(t, testpe.Image(nil), "", nil)
	attach(t, path, keyOf(t, "ours"))
	dir := t.TempDir()
	state := filepath.Join(dir, "above", "state")
	if err := os.MkdirAll(state, 0o755); err != nil {
		t.Fatal(err)
	}
	modes := func(what string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(what, mode); err != nil {
			t.Fatal(err)
		}
	}
	verify := func() error {
		policy := policyOf(identity(t, "ours", "*"))
		policy.State = &State{Dir: state}
		v, err := Verify(t.Context(), path, policy, nil)
		if err == nil {
			err = v.Close()
		}
		return err
	}
	if err := verify(); err != nil {
		t.Fatal(err)
	}
	for what, mode := range map[string]os.FileMode{state: 0o757, filepath.Dir(state): 0o757, filepath.Join(state, stateFile): 0o666} {
		before, err := os.Stat(what)
		if err != nil {
			if err = os.WriteFile(what, []byte(`{"version":1,"bundles":{},"revocationList":{"number":0,"digest":""}}`), 0o644); err == nil {
				before, err = os.Stat(what)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		modes(what, mode)
		if err := verify(); !errors.Is(err, ownership.ErrUnsafe) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		modes(what, before.Mode())
	}

	policy := filepath.Join(dir, "policy.toml")
	ca := filepath.Join(must(testKeys()), "ours", "ca.crt")
	authorities := filepath.Join(dir, "ca.crt")
	for file, content := range map[string][]byte{policy: []byte("version = 1\n[[identity]]\nname = \"x\"\ncertificates = \"ca.crt\"\nbundles = [\"*\"]\n"), authorities: must(os.ReadFile(ca))} {
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, files := range []Trust{{Policy: policy}, {Cert: authorities}} {
		for what, mode := range map[string]os.FileMode{policy: 0o646, authorities: 0o666} {
			if what == policy && files.Policy == "" {
				continue
			}
			for _, guarded := range []bool{true, false} {
				files.Guarded = guarded
				if _, err := files.Load(false); err != nil {
					t.Fatal(err)
				}
				modes(what, mode)
				if _, err := files.Load(false); errors.Is(err, ownership.ErrUnsafe) != guarded {
					t.Errorf("%+v: %s: %v", files, what, err)
				}
				modes(what, 0o644)
			}
		}
	}
}

// A directory that others can write to is refused at once, also where one of them has the lock.
func TestUnsafeStateDoesNotWait(t *testing.T) {
	dir := t.TempDir()
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := errors.Join(flock.Lock(t.Context(), lock), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = (&State{Dir: dir}).update(ctx, func(*seen) (bool, error) { return false, nil })
	if !errors.Is(err, ownership.ErrUnsafe) {
		t.Errorf("got %v, want %v", err, ownership.ErrUnsafe)
	}
}

// Package trust knows by itself what a bundle's name can be.
func TestBundleNames(t *testing.T) {
	for _, name := range []string{"web", "a", "9", "a-b", "-a", "a-", "A", "a.b", "a_b", "", "a b", strings.Repeat("a", 63), strings.Repeat("a", 64), "ä"} {
		m := testbundle.Manifest()
		m.Name = name
		if err := m.Check(); (err == nil) != (trust.CheckBundleName(name) == nil) {
			t.Errorf("%q: %v, %v", name, err, trust.CheckBundleName(name))
		}
	}
}
