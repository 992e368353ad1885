// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// dirImage makes an image of a root file system in a directory: one plain
// layer, and a config without an entrypoint. The directory is read twice, once
// for the digest; a change in between fails the digest check.
func dirImage(ctx context.Context, dir string, platform v1.Platform, progress func(int64)) (v1.Image, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s: is not a directory", dir)
	}
	open := func(v1.Descriptor) (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeTar(ctx, w, dir)) }()
		return r, nil
	}
	stream, err := open(v1.Descriptor{})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	layer, err := describe(counted{ctx, stream, progress}, types.OCIUncompressedLayer)
	if err != nil {
		return nil, err
	}
	rawConfig, err := json.Marshal(v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{layer.Digest}},
	})
	if err != nil {
		return nil, err
	}
	config, err := describe(bytes.NewReader(rawConfig), types.OCIConfigJSON)
	if err != nil {
		return nil, err
	}
	manifest := &v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{layer}}
	rawManifest, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&imageCore{
		mt: manifest.MediaType, manifest: manifest, rawManifest: rawManifest, rawConfig: rawConfig, open: open,
	})
}

// writeTar writes the directory as a tar archive: everything that a layer can
// hold, in the order of the names.
func writeTar(ctx context.Context, w io.Writer, dir string) error {
	tw := tar.NewWriter(w)
	seen := map[[2]uint64]string{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := tarEntry(tw, file, filepath.ToSlash(rel), info, seen); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		return nil
	})
	if err != nil {
		return err // Close would speak of the file that was not written to its end
	}
	return tw.Close()
}

func tarEntry(tw *tar.Writer, file, rel string, info fs.FileInfo, seen map[[2]uint64]string) error {
	if info.Mode()&fs.ModeSocket != 0 {
		return nil // meaningless without the process that listens, as in every layer
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if target, err = os.Readlink(file); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name, h.Format = rel, tar.FormatPAX
	h.Uname, h.Gname = "", ""
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	st := info.Sys().(*syscall.Stat_t)
	if st.Nlink > 1 && !info.IsDir() {
		id := [2]uint64{st.Dev, st.Ino}
		if first, ok := seen[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			seen[id] = rel
		}
	}
	if h.Typeflag != tar.TypeLink {
		if err := addXattrs(h, file); err != nil {
			return err
		}
	}
	if err := tw.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}

func addXattrs(h *tar.Header, file string) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(file, buf)
	if err == unix.ENOTSUP {
		return nil
	}
	if err != nil {
		return err
	}
	for _, attr := range strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }) {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(file, attr, value)
		if err != nil {
			return fmt.Errorf("xattr %s: %w", attr, err)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+attr] = string(value[:n])
	}
	return nil
}
