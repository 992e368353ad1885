// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
)

// Driver is source that is compiled into a kernel from the folder drivers/Name,
// beside what the kernel itself has.
type Driver struct {
	Name  string
	Files fs.FS // with a Kconfig and a Makefile at its top
}

// With returns the source with drivers added, from the cache if it is there.
// Its digest is that of the source and the drivers' names and contents.
func (s *Source) With(ctx context.Context, cache *Cache, drivers ...Driver) (*Source, error) {
	failed := func(d Driver, err error) error {
		return fmt.Errorf("adding the driver %s to kernel source %s: %w", d.Name, s.Digest, err)
	}
	digest := s.Digest
	files := make([][]string, len(drivers))
	for i, d := range drivers {
		var err error
		if files[i], err = d.read(); err != nil {
			return nil, failed(d, err)
		}
		digest = key(append([]string{"driver", digest, d.Name}, files[i]...)...)
	}
	return cache.source(ctx, digest, func(tree string) error {
		if err := linkTree(ctx, s.Dir, tree); err != nil {
			return err
		}
		for i, d := range drivers {
			if err := d.add(tree, files[i]); err != nil {
				return failed(d, err)
			}
		}
		return nil
	})
}

// read returns names and contents by turns, in the order of the names.
func (d Driver) read() ([]string, error) {
	var files []string
	err := fs.WalkDir(d.Files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(d.Files, name)
		files = append(files, name, string(data))
		return err
	})
	return files, err
}

// linkTree copies a tree by hard links. Nothing may write to a file of the copy:
// the kernel's build does not, as its objects are elsewhere.
func linkTree(ctx context.Context, from, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "-a", "--link", from+"/.", to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// add writes the driver's files and makes the lists of drivers name it.
func (d Driver) add(tree string, files []string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	dir := path.Join("drivers", d.Name)
	if _, err := root.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, errors.Join(fs.ErrExist, err))
	}
	for i := 0; i < len(files); i += 2 {
		name := path.Join(dir, files[i])
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(name, []byte(files[i+1]), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(
		appendLine(root, "drivers/Kconfig", fmt.Sprintf("source %q", dir+"/Kconfig")),
		appendLine(root, "drivers/Makefile", fmt.Sprintf("obj-y += %s/", d.Name)),
	)
}

// appendLine replaces the file by one with a further line: the file itself is
// also that of the original tree.
func appendLine(root *os.Root, name, line string) error {
	data, err := root.ReadFile(name)
	if err != nil {
		return err
	}
	if err := root.Remove(name); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, strings.TrimSuffix(string(data), "\n")+"\n"+line+"\n")
	return errors.Join(err, f.Close())
}
