// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package sigstore

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer/internal/testkey"
)

// The library that cosign verifies with takes what we sign, and refuses another
// digest, another key and another signature.
func TestE2ESigstoreGo(t *testing.T) {
	dir, foreign := t.TempDir(), t.TempDir()
	tool := filepath.Join(dir, "sigstore-go")
	if out, err := exec.Command("go", "build", "-C", "../../testdata/sigstore-go", "-o", tool, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v: %s", err, out)
	}
	key := testkey.NewAuthority(t).Key(t, nil)
	testkey.Write(t, dir, key)
	testkey.Write(t, foreign, testkey.NewAuthority(t).Key(t, nil))
	data, err := Sign(key, digest)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(data []byte, dir, digest string) (string, int) {
		path := filepath.Join(t.TempDir(), "bundle.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tool, path, filepath.Join(dir, "signing.pub"), digest)
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := verify(data, dir, digest); code != 0 {
		t.Errorf("sigstore-go refuses our bundle: %s", out)
	}
	for _, algorithm := range []string{"ecdsa-p256", "ecdsa-p384"} {
		ec, dir := testkey.Created(t, algorithm), t.TempDir()
		public, err := cryptoutils.MarshalPublicKeyToPEM(ec.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "signing.pub"), public, 0o600); err != nil {
			t.Fatal(err)
		}
		data, err := Sign(ec, digest)
		if err != nil {
			t.Fatal(err)
		}
		if out, code := verify(data, dir, digest); code != 0 {
			t.Errorf("%s: sigstore-go refuses our bundle: %s", algorithm, out)
		}
		if _, code := verify(data, dir, other); code != 1 {
			t.Errorf("%s: sigstore-go takes another digest", algorithm)
		}
	}
	at := bytes.Index(data, []byte(`"sig":"`)) + 20
	changed := bytes.Clone(data)
	changed[at] = 'A' + (changed[at]-'A'+1)%26
	for name, x := range map[string]struct {
		data        []byte
		dir, digest string
	}{
		"another digest":    {data, dir, other},
		"another key":       {data, foreign, digest},
		"another signature": {changed, dir, digest},
	} {
		out, code := verify(x.data, x.dir, x.digest)
		if code != 1 {
			t.Errorf("%s: exit code %d: %s", name, code, out)
		}
		t.Logf("%s: %s", name, out)
	}
}
