// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestRotate(t *testing.T) {
	dir := hierarchy(t)
	release, issuer := filepath.Join(dir, "release"), mustOpenIssuer(t, filepath.Join(dir, "ca"))
	if err := os.WriteFile(filepath.Join(release, "README"), []byte("mine"), 0o640); err != nil {
		t.Fatal(err)
	}
	oldKey, old := read(t, release, "signing.key"), mustParse(t, release, "signing.crt")[0]
	done, err := Rotate(t.Context(), release, RotateOptions{Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	made := mustParse(t, release, "signing.crt")[0]
	kept := fmt.Sprintf("signing-%x", old.SerialNumber)
	switch {
	case !done.New.Equal(made) || !done.Old.Equal(old) || done.Kept != filepath.Join(release, kept+".crt"):
		t.Errorf("got %+v", done)
	case !bytes.Equal(made.RawSubject, old.RawSubject) || made.SerialNumber.Cmp(old.SerialNumber) == 0 || Fingerprint(made.PublicKey) == Fingerprint(old.PublicKey):
		t.Error("the new leaf has another name, or the old key or serial number")
	case len(ProfileOf(made, issuer.Chain[0]).Check(made)) > 0 || AlgorithmOf(made.PublicKey) != AlgorithmOf(old.PublicKey):
		t.Error("the new leaf has another profile")
	case made.NotAfter.After(issuer.Chain[0].NotAfter):
		t.Error("the new leaf outlives its issuer")
	case !bytes.Equal(read(t, release, kept+".key"), oldKey) || !mustParse(t, release, kept+".crt")[0].Equal(old):
		t.Error("the old leaf is not kept")
	case string(read(t, release, "README")) != "mine":
		t.Error("another's file is gone")
	}
	if info, err := os.Stat(filepath.Join(release, "signing.key")); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	// Again, and by a link.
	link := filepath.Join(dir, "link")
	if err := os.Symlink("release", link); err != nil {
		t.Fatal(err)
	}
	if _, err := Rotate(t.Context(), link, RotateOptions{Issuer: issuer, Valid: time.Minute, Passphrase: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	names, err := fileNames(release)
	if err != nil || len(names) != 10 {
		t.Errorf("has %q, %v", names, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	// From here on, the key has to be encrypted.
	if _, err := Rotate(t.Context(), release, RotateOptions{Issuer: issuer}); !errors.Is(err, ErrEncrypted) {
		t.Errorf("got %v", err)
	}
}

func TestRotateDevelopment(t *testing.T) {
	dir := newDir(t)
	done, err := Rotate(t.Context(), dir, RotateOptions{Issuer: mustOpenIssuer(t, dir)})
	if err != nil {
		t.Fatal(err)
	}
	profile(t, done.New, mustParse(t, dir, "ca.crt")[0])
	if key, err := Open(t.Context(), filepath.Join(dir, "signing.key"), OpenOptions{}); err != nil || !key.Chain[0].Equal(done.New) {
		t.Errorf("%v", err)
	}
	if key, err := Open(t.Context(), strings.TrimSuffix(done.Kept, "crt")+"key", OpenOptions{}); err != nil || !key.Chain[0].Equal(done.Old) {
		t.Errorf("%v", err)
	}
}

func TestRotateKeyElsewhere(t *testing.T) {
	dir := hierarchy(t)
	issuer := mustOpenIssuer(t, filepath.Join(dir, "ca"))
	release := filepath.Join(dir, "release")
	if err := os.Remove(filepath.Join(release, "signing.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Rotate(t.Context(), release, RotateOptions{Issuer: issuer}); !errors.Is(err, ErrElsewhere) {
		t.Errorf("got %v", err)
	}
	key := newKey(t)
	done, err := Rotate(t.Context(), release, RotateOptions{Issuer: issuer, PublicKey: key.Public()})
	if err != nil || Fingerprint(done.New.PublicKey) != Fingerprint(key.Public()) {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(release, "signing.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// What is refused leaves everything as it was.
func TestRotateRefuses(t *testing.T) {
	dir := hierarchy(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	ca, root := mustOpenIssuer(t, in("ca")), mustOpenIssuer(t, in("root"))
	write := func(name, data string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(in(name)), 0o755), os.WriteFile(in(name), []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("file", "x")
	write("garbage/signing.crt", "x")
	write("authority/signing.crt", string(read(t, dir, "ca", "ca.crt")))
	write("nested/below/file", "x")
	for _, name := range []string{"signing.crt", "signing.key"} {
		write("nested/"+name, string(read(t, dir, "release", name)))
	}
	for _, test := range []struct {
		name, dir, want string
		o               RotateOptions
	}{
		{"missing", "none", "no such file", RotateOptions{Issuer: ca}},
		{"not a folder", "file", "not a directory", RotateOptions{Issuer: ca}},
		{"a CA's folder", "ca", "no leaf: signing.crt", RotateOptions{Issuer: root}},
		{"garbage", "garbage", "no certificate in PEM form", RotateOptions{Issuer: ca}},
		{"an authority", "authority", "no leaf: certificate", RotateOptions{Issuer: root}},
		{"a folder in the folder", "nested", `"below" is a folder`, RotateOptions{Issuer: ca}},
		{"another issuer", "release", `the issuer "CN=test root" did not issue "CN=test release"`, RotateOptions{Issuer: root}},
		{"outlives its issuer", "release", "validity: ends after that of issuer", RotateOptions{Issuer: ca, Valid: 2 * time.Hour}},
	} {
		if _, err := Rotate(t.Context(), in(test.dir), test.o); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
	if names, err := fileNames(in("release")); err != nil || len(names) != 3 {
		t.Errorf("has %q, %v", names, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 7 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// Waiting for another rotation ends with ctx.
func TestRotateInterrupted(t *testing.T) {
	dir := hierarchy(t)
	release, issuer := filepath.Join(dir, "release"), mustOpenIssuer(t, filepath.Join(dir, "ca"))
	unlock, err := lockDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Rotate(ctx, release, RotateOptions{Issuer: issuer}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if names, err := fileNames(release); err != nil || len(names) != 3 {
		t.Errorf("has %q, %v", names, err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}

// Of several at once, each makes its leaf the current one and keeps the one
// before, or does nothing.
func TestRotateAtOnce(t *testing.T) {
	dir := hierarchy(t)
	release, issuer := filepath.Join(dir, "release"), mustOpenIssuer(t, filepath.Join(dir, "ca"))
	var done atomic.Int32
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 20 {
				_, err := Rotate(t.Context(), release, RotateOptions{Issuer: issuer})
				if err == nil {
					done.Add(1)
				} else if !strings.HasSuffix(err.Error(), "another rotation came first") {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	names, err := fileNames(release)
	if err != nil || done.Load() == 0 || len(names) != 3+3*int(done.Load()) {
		t.Errorf("%d rotations, %d files, %v", done.Load(), len(names), err)
	}
}
