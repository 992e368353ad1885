// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package uefi

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tenon-build/tenon/signer/internal/testkey"
)

// files is a folder that tools run in.
type files string

func (dir files) path(name string) string { return filepath.Join(string(dir), name) }

func (dir files) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(dir.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (dir files) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(dir.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (dir files) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = string(dir)
	cmd.Env = append(os.Environ(), "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// efitools write the same bytes.
func TestE2EEfitools(t *testing.T) {
	dir := files(t.TempDir())
	key := testkey.NewAuthority(t).Key(t, nil)
	testkey.Write(t, string(dir), key)
	ca := key.Chain[1]
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

	dir.run(t, "cert-to-efi-sig-list", "-g", Owner, "ca.crt", "theirs.esl")
	if !bytes.Equal(dir.read(t, "theirs.esl"), Certificate(ca)) {
		t.Error("cert-to-efi-sig-list writes another signature list")
	}
	dir.run(t, "cert-to-efi-hash-list", "-g", Owner, "-s", "256", "ca.crt", "theirs.hash.esl")
	if !bytes.Equal(dir.read(t, "theirs.hash.esl"), Revocation(ca)) {
		t.Error("cert-to-efi-hash-list writes another revocation")
	}
	lists, err := Lists("dbx", ca)
	if err != nil {
		t.Fatal(err)
	}
	dir.write(t, "ours.esl", lists)
	t.Log(dir.run(t, "sig-list-to-certs", "ours.esl", "cert"))
	if !bytes.Equal(dir.read(t, "cert-0.der"), ca.Raw) {
		t.Error("sig-list-to-certs reads another certificate")
	}
	for _, test := range []struct {
		variable string
		flags    []string
		update   Update
	}{
		{"db", nil, Update{}},
		{"dbx", []string{"-a"}, Update{Append: true}},
		{"KEK", []string{"-a"}, Update{Append: true}},
		{"PK", nil, Update{}},
	} {
		u := test.update
		u.Variable, u.Lists, u.Time = test.variable, lists, at
		ours, err := Sign(key, u)
		if err != nil {
			t.Fatal(err)
		}
		args := append([]string{"sign-efi-sig-list", "-t", "2026-02-03 04:05:06", "-c", "signing.crt", "-k", "signing.key"}, test.flags...)
		dir.run(t, append(args, test.variable, "ours.esl", "theirs.auth")...)
		if theirs := dir.read(t, "theirs.auth"); !bytes.Equal(theirs, ours) {
			t.Errorf("%s: sign-efi-sig-list writes another update: %d bytes, ours has %d", test.variable, len(theirs), len(ours))
		}
	}
}
