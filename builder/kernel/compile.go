// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// build compiles, or links again, in the folder "work" beside the objects. Its
// path is the same for all configurations of one source, because the kernel's
// build writes it into its dependency files and would compile everything again
// elsewhere. It starts from a copy of the objects of the closest configuration, of
// which the kernel's build keeps what does not depend on the difference. Nothing works
// in the objects that are kept, so that a killed build harms nothing.
func build(ctx context.Context, cache *Cache, req Request, config []byte, tools, name string, lock *os.File) (err error) {
	objects := filepath.Join(tools, name)
	dir := cache.Path("objects", objects)
	work := filepath.Join(filepath.Dir(dir), "work")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	start, err := closest(filepath.Dir(dir), config)
	if err != nil {
		return err
	}
	if start != "" {
		err = copyObjects(ctx, start, work)
	} else {
		err = os.MkdirAll(work, 0o755)
	}
	if err != nil {
		return err
	}
	if err := writeEmptyArchive(filepath.Join(work, builtinName)); err != nil {
		return err
	}
	if err := compile(ctx, req, config, work, lock); err != nil {
		return err
	}
	result, err := collect(cache, work)
	if err != nil {
		return err
	}
	defer os.RemoveAll(result)
	if err := cache.commit(result, "kernel", name); err != nil {
		return err
	}
	for _, pattern := range linked {
		files, err := fs.Glob(os.DirFS(work), pattern)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Remove(filepath.Join(work, f)); err != nil {
				return err
			}
		}
	}
	return cache.commit(work, "objects", objects)
}

// linked is what every link makes anew: large, and not worth keeping.
var linked = []string{
	"usr/initramfs_inc_data", "usr/initramfs_data.o", "vmlinux", "vmlinux.o", ".tmp_vmlinux*",
	plainName, packedName, "arch/x86/boot/bzImage", "arch/x86/boot/vmlinux.bin", "arch/x86/boot/compressed/vmlinux*", "arch/x86/boot/compressed/piggy.*",
}

// closest returns the objects whose configuration differs in the fewest lines,
// empty when there are none.
func closest(home string, config []byte) (string, error) {
	root := os.DirFS(home)
	found, err := fs.Glob(root, "*/.config")
	if err != nil {
		return "", err
	}
	want := lines(config)
	var path string
	least := math.MaxInt
	for _, file := range found {
		data, err := fs.ReadFile(root, file)
		if err != nil {
			return "", err
		}
		have := lines(data)
		differing := len(want)
		for line := range have {
			if want[line] {
				differing--
			} else {
				differing++
			}
		}
		if differing < least {
			path, least = filepath.Join(home, filepath.Dir(file)), differing
		}
	}
	return path, nil
}

// lines is the set of a text's lines.
func lines(text []byte) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		set[line] = true
	}
	return set
}

func compile(ctx context.Context, req Request, config []byte, work string, lock *os.File) error {
	log, err := os.Create(filepath.Join(filepath.Dir(work), "build.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	k := kbuild{source: req.Source.Dir, objects: work, jobs: req.Jobs, log: log, lock: lock}
	if err := os.WriteFile(filepath.Join(work, ".config"), config, 0o644); err != nil {
		return err
	}
	req.Progress(0, 0)
	if err := k.run(ctx, nil, "prepare"); err != nil {
		return err
	}
	total, done := k.countSteps(ctx), 0
	k.step = func(string) {
		done++
		req.Progress(done, total)
	}
	if err := k.link(ctx); err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(work, ".config"))
	if err == nil && string(got) != string(config) {
		err = errors.New("the kernel's build changed its configuration")
	}
	return err
}

// writeEmptyArchive writes a newc cpio archive that has its trailer alone.
func writeEmptyArchive(path string) error {
	const trailer = "TRAILER!!!\x00"
	header := fmt.Sprintf("070701%s%08x%08x", strings.Repeat("00000000", 11), len(trailer), 0)
	archive := header + trailer
	return os.WriteFile(path, append([]byte(archive), make([]byte, 512-len(archive))...), 0o644)
}

// collect copies the results out of the object tree.
func collect(cache *Cache, work string) (string, error) {
	tmp, err := cache.TempDir()
	if err != nil {
		return "", err
	}
	for file, from := range map[string]string{
		"bzImage":    "arch/x86/boot/bzImage",
		"System.map": "System.map",
		"config":     ".config",
		"release":    "include/config/kernel.release",
	} {
		if err := copyFile(filepath.Join(work, from), filepath.Join(tmp, file)); err != nil {
			return "", errors.Join(err, os.RemoveAll(tmp))
		}
	}
	return tmp, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// copyObjects copies an object tree with the times that make compares.
func copyObjects(ctx context.Context, from, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copying compiled objects: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
