// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package initramfs_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/testdata/corpus"
	"github.com/tenon-build/tenon/testdata/corpus/scan"
)

// TestE2EArchivers unpacks what Write makes of every image of the corpus with
// archivers that others wrote, and wants the image back.
func TestE2EArchivers(t *testing.T) {
	for _, program := range []struct {
		name  string
		args  []string
		times bool // sets those of folders after their files, and of symlinks
	}{
		{"cpio", []string{"-idmu", "--quiet", "-D"}, false},
		{"bsdtar", []string{"--numeric-owner", "-xpf", "-", "-C"}, true},
	} {
		t.Run(program.name, func(t *testing.T) {
			for _, c := range accepted() {
				t.Run(c.Name, func(t *testing.T) {
					got, want := extract(t, program.name, program.args, c), inCpio(c.Want)
					if c.Alone { // they leave the folder that they unpack into as it is
						got, want = got[1:], want[1:]
					}
					if !program.times {
						got, want = withoutTimes(got), withoutTimes(want)
					}
					if d := corpus.Diff(got, want); d != "" {
						t.Error(d)
					}
				})
			}
		})
	}
}

// extract unpacks a case's archive with a program that takes a folder as its
// last argument. The root of the case is a folder in the archive, unless it is
// to be alone.
func extract(t *testing.T, program string, args []string, c corpus.Case) []scan.File {
	t.Helper()
	unpacked, in := t.TempDir(), tree(t, c)
	cmd := exec.Command(program, append(slices.Clone(args), unpacked)...)
	if !c.Alone {
		outer := rootfs.New()
		put(t, outer, "root", root(t, in))
		in, unpacked = outer, filepath.Join(unpacked, "root")
	}
	cmd.Stdin = bytes.NewReader(archive(t, in))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	files, err := scan.Dir(unpacked, false)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func withoutTimes(files []scan.File) []scan.File {
	files = slices.Clone(files)
	for i := range files {
		if files[i].Type == "dir" || files[i].Type == "symlink" {
			files[i].Time = 0
		}
	}
	return files
}

// TestE2EKernel has the kernel unpack the images of the corpus, side by side in
// one boot and those that must have the root to themselves in one each.
func TestE2EKernel(t *testing.T) {
	probe := compile(t)
	t.Run("batch", func(t *testing.T) {
		batch := rootfs.New()
		for _, c := range accepted() {
			if !c.Alone {
				put(t, batch, "cases/"+c.Name, root(t, tree(t, c)))
			}
		}
		got := boot(t, batch, probe)
		for _, c := range accepted() {
			if !c.Alone {
				t.Run(c.Name, func(t *testing.T) { compare(t, got, c.Name, c) })
			}
		}
	})
	for _, c := range accepted() {
		if c.Alone {
			t.Run(c.Name, func(t *testing.T) { compare(t, boot(t, tree(t, c), probe), ".", c) })
		}
	}
}

// accepted are the cases that unpack.
func accepted() []corpus.Case {
	return slices.DeleteFunc(corpus.Cases(), func(c corpus.Case) bool { return c.Refused != "" })
}

// inCpio is what an initramfs keeps of a list: no extended attributes, and the
// kernel does not link symlinks.
func inCpio(want []scan.File) []scan.File {
	want = slices.Clone(want)
	for i := range want {
		want[i].Xattrs = nil
		if want[i].Type == "symlink" {
			want[i].Link = ""
		}
	}
	return want
}

// compare looks for the files of a case below a directory of what the kernel
// unpacked.
func compare(t *testing.T, all []string, dir string, c corpus.Case) {
	t.Helper()
	var got, want []string
	for _, f := range inCpio(c.Want) {
		f.Path = path.Join(dir, f.Path)
		if f.Link != "" {
			f.Link = path.Join(dir, f.Link)
		}
		want = append(want, f.String())
	}
	for _, line := range all {
		if dir == "." || strings.HasPrefix(line, fmt.Sprintf("\"%s\"", dir)) || strings.HasPrefix(line, fmt.Sprintf("\"%s/", dir)) {
			got = append(got, line)
		}
	}
	if d := corpus.DiffLines(got, want); d != "" {
		t.Error(d)
	}
}

func tree(t *testing.T, c corpus.Case) *rootfs.Tree {
	t.Helper()
	img, err := c.Image()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := rootfs.FromImage(t.Context(), img, t.TempDir(), rootfs.DefaultLimits, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func root(t *testing.T, tree *rootfs.Tree) *rootfs.Inode {
	t.Helper()
	n, err := tree.Lookup("/")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func put(t *testing.T, tree *rootfs.Tree, name string, n *rootfs.Inode) {
	t.Helper()
	if err := tree.Put(name, n); err != nil {
		t.Fatal(err)
	}
}

func archive(t *testing.T, tree *rootfs.Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := initramfs.Write(&b, tree); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// compile returns the program that lists what the kernel unpacked.
func compile(t *testing.T) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "../../testdata/corpus/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the probe: %v\n%s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// boot starts Debian's kernel with the tree and the probe as its initramfs, and
// returns the probe's list without what is the probe's and the kernel's own.
func boot(t *testing.T, tree *rootfs.Tree, probe []byte) []string {
	t.Helper()
	kernels, err := filepath.Glob("/boot/vmlinuz-*")
	if err != nil || len(kernels) == 0 {
		t.Fatalf("no kernel in /boot: run 'make deps' (%v)", err)
	}
	put(t, tree, "init", rootfs.NewFile(bytes.NewReader(probe), int64(len(probe)), 0o755))
	put(t, tree, "dev/console", rootfs.NewDevice(5, 1, 0o600))
	put(t, tree, "dev/ttyS1", rootfs.NewDevice(4, 65, 0o600))
	dir := t.TempDir()
	initrd, console, list := filepath.Join(dir, "initrd"), filepath.Join(dir, "console"), filepath.Join(dir, "list")
	if err := os.WriteFile(initrd, archive(t, tree), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "512",
		"-nodefaults", "-display", "none", "-no-reboot", "-kernel", kernels[len(kernels)-1], "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1", "-serial", "file:"+console, "-serial", "file:"+list).CombinedOutput()
	said, _ := os.ReadFile(console)
	if err != nil {
		t.Fatalf("qemu: %v\n%s\n%s", err, out, said)
	}
	listed, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(listed), "\r\n", "\n")), "\n")
	end := len(lines) - 1
	if lines[end] != fmt.Sprint("END ", end) {
		t.Fatalf("the list of %d lines is not whole\n%s", end, said)
	}
	return slices.DeleteFunc(lines[:end], func(line string) bool {
		name, _, _ := strings.Cut(line, " ")
		return slices.Contains([]string{`"init"`, `"root"`, `"dev"`, `"dev/console"`, `"dev/ttyS1"`}, name)
	})
}
