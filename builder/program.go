// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// isStatic says whether the image's program is an ELF file without an
// interpreter. A program that is not there is nobody's static binary; PID 1
// will say that it is missing.
func isStatic(t *rootfs.Tree, argv []string, app manifest.App) (bool, error) {
	if len(argv) == 0 {
		return false, nil
	}
	n, err := lookPath(t, argv[0], app)
	if errors.Is(err, fs.ErrNotExist) || err == nil && n.Type != rootfs.Regular {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	file, err := elf.NewFile(readerAt{n})
	if err != nil {
		return false, nil // a script, for example
	}
	return !slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), nil
}

type readerAt struct{ n *rootfs.Inode }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	return r.n.Open().(io.ReaderAt).ReadAt(p, off)
}

// lookPath finds a program as execvp(3) does in the app's directory and PATH.
func lookPath(t *rootfs.Tree, program string, app manifest.App) (*rootfs.Inode, error) {
	if strings.ContainsRune(program, '/') {
		if !path.IsAbs(program) {
			program = path.Join(app.WorkingDir, program)
		}
		return t.Lookup(program)
	}
	search := manifest.DefaultPath
	for _, e := range app.Env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			search = p
		}
	}
	for _, dir := range strings.Split(search, ":") {
		n, err := t.Lookup(path.Join(dir, program))
		if err == nil && n.Type == rootfs.Regular && n.Perm&0o111 != 0 {
			return n, nil
		}
	}
	return nil, fs.ErrNotExist
}
