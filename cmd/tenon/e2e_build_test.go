// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/testdata/e2e"
)

// TestE2EBuildRefuses checks bad input of build: one line that names the object
// and the reason, the right exit status, nothing left behind.
func TestE2EBuildRefuses(t *testing.T) {
	good := e2e.Image(t, nil)
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := string(e2e.Must(os.ReadFile(e2e.ProbeRecipe())))
	truncated := t.TempDir()
	if err := os.CopyFS(truncated, os.DirFS(strings.TrimPrefix(good, "oci:"))); err != nil {
		t.Fatal(err)
	}
	flipped := t.TempDir()
	if err := os.CopyFS(flipped, os.DirFS(truncated)); err != nil {
		t.Fatal(err)
	}
	layer := e2e.Largest(t, filepath.Join(truncated, "blobs/sha256"))
	if err := os.Truncate(layer, 100_000); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(flipped, "blobs/sha256", filepath.Base(layer))
	data := e2e.Must(os.ReadFile(broken))
	e2e.WriteFile(t, broken, e2e.Flip(data, len(data)/2))
	empty := t.TempDir() // a PATH without a compiler
	for _, tool := range []string{"make", "ld", "flex", "bison", "bc", "zstd", "perl", "xz"} {
		if err := os.Symlink(e2e.Must(exec.LookPath(tool)), filepath.Join(empty, tool)); err != nil {
			t.Fatal(err)
		}
	}
	noConfig := e2e.Image(t, func(c *v1.Config) { c.Entrypoint = nil })

	for _, c := range []struct {
		name string
		args []string
		env  string
		code int
		want string
	}{
		{"unknown image", []string{"oci:" + dir + "/missing"}, "", 1, "no such image"},
		{"unknown registry", []string{"127.0.0.1:1/no/such:image"}, "", 1, "connection refused"},
		{"malformed reference", []string{"UPPER/case"}, "", 1, "UPPER/case"},
		{"wrong platform", []string{"--platform", "linux/arm64", good}, "", 2, "linux/arm64"},
		{"truncated layer", []string{"-r", e2e.ProbeRecipe(), "oci:" + truncated}, "", 1, filepath.Base(layer)},
		{"digest mismatch", []string{"-r", e2e.ProbeRecipe(), "oci:" + flipped}, "", 1, filepath.Base(layer)},
		{"missing compiler", []string{"-r", e2e.ProbeRecipe(), good}, "PATH=" + empty, 1, "missing build tools: gcc"},
		{"cache in a folder that make cannot work in", []string{"-r", e2e.ProbeRecipe(), "--cache-dir", dir + "/a b", good}, "", 1, "spaces"},
		{"no kernel source", []string{"-r", e2e.ProbeRecipe(), "--kernel-source", "debian:9.9", good}, "", 1, "linux-source-9.9"},
		{"recipe with an unknown key", []string{"-r", write("key.toml", base+"colour = \"red\"\n"), good}, "", 1, "key.toml:19: unknown key"},
		{"unknown recipe", []string{"-r", "postgres", good}, "", 1, `unknown recipe "postgres"`},
		{"unknown symbol", []string{"-r", write("symbol.toml", "config = [\n  \"FUTEX=y\",\n  \"NO_SUCH_SYMBOL=y\",\n]\n"+base), good}, "", 1, "symbol.toml:3: NO_SUCH_SYMBOL=y"},
		{"dropped symbol", []string{"-r", write("dropped.toml", "config = [\"BTRFS_FS=y\"]\n"+base), good}, "", 1, "dropped.toml:1: BTRFS_FS=y was dropped: depends on BLOCK"},
		{"conflict", []string{"-r", write("conflict.toml", "config = [\"MODULES=y\"]\n"+base), good}, "", 1, "sealed.config"},
		{"a reader of the boot loader's options", []string{"-r", write("early.toml", "config = [\"EARLY_PRINTK=y\"]\n"+base), good}, "", 1, "the kernel cannot be sealed: EARLY_PRINTK=y"},
		{"another one", []string{"-r", write("sme.toml", "config = [\"AMD_MEM_ENCRYPT=y\"]\n"+base), good}, "", 1, "the kernel cannot be sealed: AMD_MEM_ENCRYPT=y"},
		{"unknown fragment", []string{"-r", write("fragment.toml", "fragments = [\"bluetooth\"]\n"+base), good}, "", 1, "bluetooth"},
		{"nothing to run", []string{"-r", e2e.ProbeRecipe(), noConfig}, "", 1, "neither an entrypoint nor a command"},
		{"no recipe fits", []string{"oci:" + e2e.Required(t, "TENON_REDIS_IMAGE"), "-r", "./missing.toml"}, "", 1, "missing.toml"},
		{"output is something else", []string{"-r", e2e.ProbeRecipe(), "-o", dir, good}, "", 1, "exists and is not a bundle"},
		{"output's folder is missing", []string{"-r", e2e.ProbeRecipe(), "-o", dir + "/no/where", good}, "", 1, "no such file"},
		{"image larger than the limit", []string{"-r", e2e.ProbeRecipe(), "--max-size", "1MiB", good}, "", 1, "more bytes than the limit allows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			work := t.TempDir()
			cmd := exec.CommandContext(t.Context(), e2e.Program(t, "tenon"), append([]string{"build"}, c.args...)...)
			cmd.Dir = work
			cmd.Env = os.Environ()
			if c.env != "" {
				cmd.Env = append(cmd.Env, c.env)
			}
			o := e2e.Execute(cmd)
			if o.Code != c.code || !strings.Contains(o.Stderr, c.want) || strings.Count(o.Stderr, "tenon: error: ") != 1 || o.Stdout != "" {
				t.Errorf("want status %d and one line with %q: %s", c.code, c.want, o)
			}
			if left := e2e.Must(os.ReadDir(work)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			t.Log(strings.TrimSpace(o.Stderr))
		})
	}
}
