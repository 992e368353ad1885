// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/modsig"
	"github.com/tenon-build/tenon/signer/regular"
)

// signModule signs a kernel module in place, or into the file out, and prints
// the path of the result.
func (a *app) signModule(path, out string, key *signer.Key) error {
	if out == "" {
		out = path
	}
	if err := signModuleFile(path, out, key); err != nil {
		return fmt.Errorf("signing module %q: %w", path, err)
	}
	by := (&signer.Signer{Key: key.Public(), Chain: key.Chain}).String()
	fmt.Fprintf(a.Stderr, "signed     module, by %s\n", cli.Printable(by))
	_, err := fmt.Fprintln(a.Stdout, out)
	return err
}

func signModuleFile(path, out string, key *signer.Key) error {
	in, err := regular.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	module, err := io.ReadAll(io.LimitReader(in, modsig.MaxSize+1))
	if err != nil {
		return err
	}
	signed, err := modsig.Sign(key, module)
	if err != nil {
		return err
	}
	return writeLike(out, signed, info)
}

// writeLike writes a file in one step, with the mode and the owner of another. A
// file that is there is replaced; what is no file is refused, and a symbolic link
// is followed.
func writeLike(path string, data []byte, like fs.FileInfo) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if err := regular.CheckOutput(path); err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return err
	}
	defer f.Cleanup() //nolint:errcheck // does nothing once the file is in its place
	if _, err := f.Write(data); err != nil {
		return err
	}
	if owner, ok := like.Sys().(*syscall.Stat_t); ok && (int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid()) {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	if err := f.Chmod(like.Mode()); err != nil { // after chown, which clears set-ID bits
		return err
	}
	return f.CloseAtomicallyReplace()
}
