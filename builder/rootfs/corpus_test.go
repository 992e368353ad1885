// SPDX-License-Identifier: Apache-2.0

package rootfs_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/testdata/corpus"
	"github.com/tenon-build/tenon/testdata/corpus/scan"
)

// TestCorpus holds the tree of every image to its expectation, and wants
// nothing left of those that are refused.
func TestCorpus(t *testing.T) {
	for _, c := range corpus.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			img, err := c.Image()
			if err != nil {
				t.Fatal(err)
			}
			tmp := t.TempDir()
			tree, err := unpack(t, img, tmp)
			if c.Refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.Refused) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got  %v\nwant %s", err, c.Refused)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if d := corpus.Diff(scanTree(t, tree), c.Want); d != "" {
				t.Error(d)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// A sparse file that the limits allow is still too much for the few bytes that
// the layer has, and is refused before any of it is spooled.
func TestSparseBomb(t *testing.T) {
	for _, c := range corpus.Cases() {
		if c.Name != "sparse-bomb-of-2-gib" {
			continue
		}
		img, err := c.Image()
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = rootfs.FromImage(t.Context(), img, t.TempDir(), rootfs.DefaultLimits, func(int64) {})
		if err == nil || !strings.Contains(err.Error(), "to more than 250 times as many") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		return
	}
	t.Error("the case is gone")
}

func TestCorpusNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range corpus.Cases() {
		if seen[c.Name] {
			t.Errorf("two cases are called %s", c.Name)
		}
		seen[c.Name] = true
	}
	if len(seen) < 60 {
		t.Errorf("only %d cases", len(seen))
	}
}

func unpack(t *testing.T, img v1.Image, tmp string) (*rootfs.Tree, error) {
	t.Helper()
	tree, err := rootfs.FromImage(t.Context(), img, tmp, rootfs.Limits{Entries: 1000, Bytes: 2<<20 - 1}, func(int64) {})
	if err == nil {
		t.Cleanup(func() { tree.Close() })
	}
	return tree, err
}

// scanTree lists a tree as scan.Dir would if it were a directory.
func scanTree(t *testing.T, tree *rootfs.Tree) []scan.File {
	t.Helper()
	var files []scan.File
	var inodes []*rootfs.Inode
	err := tree.Walk(func(path string, n *rootfs.Inode) error {
		f := scan.File{
			Path: path, Type: types[n.Type], Mode: n.Perm, UID: uint32(n.UID), GID: uint32(n.GID), Time: n.ModTime.Unix(),
			Size: n.Size, Target: n.Target, Major: n.Major, Minor: n.Minor, Xattrs: maps.Clone(n.Xattrs),
		}
		if n.Type == rootfs.Regular {
			sum := sha256.New()
			if got, err := io.Copy(sum, n.Open()); err != nil || got != n.Size {
				return fmt.Errorf("%s: %d of %d bytes, %w", path, got, n.Size, err)
			}
			f.SHA256 = hex.EncodeToString(sum.Sum(nil))
		}
		files, inodes = append(files, f), append(inodes, n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return scan.Sorted(files, inodes)
}

var types = map[rootfs.Type]string{
	rootfs.Regular: "file", rootfs.Directory: "dir", rootfs.Symlink: "symlink",
	rootfs.CharDevice: "char", rootfs.BlockDevice: "block", rootfs.FIFO: "fifo",
}
