// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package bundle_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/testdata/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// TestE2EOthersTools reads what we write with tools that others wrote.
func TestE2EOthersTools(t *testing.T) {
	ref, digest := e2e.Build(t, "--detached", "-r", e2e.ProbeRecipe(), "--name", "probe", e2e.Image(t, nil, e2e.ProbeFiles...))

	t.Run("skopeo copies a bundle", func(t *testing.T) {
		dir := t.TempDir()
		for _, copied := range []string{"oci-archive:" + dir + "/copy.tar", "oci:" + dir + "/copy"} {
			if o := e2e.Execute(exec.Command("skopeo", "copy", "-q", "oci:"+ref, copied)); o.Code != 0 {
				t.Fatal(o)
			}
			o := e2e.Tenon(t, "inspect", "--format", "json", copied)
			if o.Code != 0 || !strings.Contains(o.Stdout, digest) {
				t.Errorf("%s: want digest %s: %s", copied, digest, o)
			}
		}
		if o := e2e.Run(t, dir+"/copy"); o.Code != 0 {
			t.Error(o)
		}
	})

	archive := filepath.Join(t.TempDir(), "initramfs.cpio")
	if o := e2e.Execute(exec.Command("zstd", "-qd", e2e.LayerFile(t, ref, bundle.InitramfsType), "-o", archive)); o.Code != 0 {
		t.Fatal(o)
	}
	want := map[string]string{ // name: type, permissions, links, owner
		".tenon/init": "-rwxr-xr-x 1 0 0", "bin": "drwxr-xr-x 1 0 0", "bin/probe": "-rwxr-xr-x 1 0 0",
		"dev/console": "crw------- 1 0 0", "kept": "-rwsr-xr-x 2 12 34", "linked": "-rwsr-xr-x 2 12 34", "left-out": "drwxr-xr-x 1 0 0",
	}
	for name, list := range map[string]string{
		"GNU cpio": "cpio -itv --quiet -n <\"$0\"",
		"bsdtar":   "bsdtar --numeric-owner -tvf \"$0\"",
	} {
		t.Run(name, func(t *testing.T) {
			o := e2e.Execute(exec.Command("sh", "-c", list, archive))
			if o.Code != 0 {
				t.Fatal(o)
			}
			got := map[string]string{}
			for line := range strings.Lines(o.Stdout) {
				line, _, _ = strings.Cut(line, " link to ") // bsdtar's word for a hard link
				f := strings.Fields(line)
				got[f[len(f)-1]] = strings.Join(f[:4], " ")
			}
			for file, attributes := range want {
				if got[file] != attributes {
					t.Errorf("%s: %s, want %s", file, got[file], attributes)
				}
			}
			if !strings.Contains(o.Stdout, "5, ") && !strings.Contains(o.Stdout, "5,1") {
				t.Errorf("no device number of /dev/console:\n%s", o.Stdout)
			}
		})
	}
}
