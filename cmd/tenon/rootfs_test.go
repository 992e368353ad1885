// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/initramfs"
)

// listing lists an archive.
func listing(t *testing.T, archive []byte) string {
	t.Helper()
	var out []string
	err := initramfs.List(bytes.NewReader(archive), func(e initramfs.Entry) error {
		out = append(out, fmt.Sprintf("%s@%d", e.Name, e.ModTime.Unix()))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return strings.Join(out, " ")
}

func TestRootfs(t *testing.T) {
	image := dirWithOldFile(t)
	t.Chdir(t.TempDir())
	r := invoke(t, "rootfs", image, "--allow-drop", "o*", "-o", "x.cpio.zst")
	packed := mustRead(t, "x.cpio.zst")
	if r.code != 0 || r.stdout != fmt.Sprintf("sha256:%x\n", sha256.Sum256(packed)) || !strings.Contains(r.stderr, "changed    older: time clamped to 1970-01-01T00:00:00Z, by waiver o*: modification time -2 ") {
		t.Errorf("%+v", r)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := z.DecodeAll(packed, nil)
	if got := listing(t, plain); err != nil || got != ".@7 old@0 older@0" {
		t.Errorf("%s, %v", got, err)
	}

	r = invoke(t, "rootfs", image, "--allow-drop", "**", "-o", "-")
	if r.code != 0 || r.stdout != string(plain) || strings.Contains(r.stderr, "sha256:") {
		t.Errorf("%d, %s", r.code, r.stderr)
	}

	// What is there is replaced, and stays when something fails.
	if err := os.WriteFile("x.cpio", []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := invoke(t, "rootfs", image, "-o", "x.cpio"); r.code != 1 || string(mustRead(t, "x.cpio")) != "before" {
		t.Errorf("%+v", r)
	}
	r = invoke(t, "rootfs", image, "-o", "x.cpio", "--allow-drop", "old", "--allow-drop", "older", "--format", "json")
	var got builder.FlattenResult
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != 0 || !bytes.Equal(mustRead(t, "x.cpio"), plain) {
		t.Errorf("%+v, %v", r, err)
	}
	want := fidelity.New()
	want.Entries, want.Bytes = 3, 10
	for i, path := range []string{"old", "older"} {
		why := fmt.Sprintf("modification time %d does not fit the initramfs format (32 bits)", -1-i)
		want.Changed = append(want.Changed, fidelity.Change{Path: path, What: "time clamped to 1970-01-01T00:00:00Z", By: "waiver " + path, Why: why})
	}
	if !reflect.DeepEqual(got.Fidelity, want) || got.Output != "x.cpio" || got.Size != int64(len(plain)) {
		t.Errorf("%+v", got)
	}
	if left, err := os.ReadDir("."); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
