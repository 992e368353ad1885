// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/testdata/corpus"
)

// FuzzImage puts a layer of any bytes over a small image. What unpacks must
// come back from its archive: the tree, name by name.
func FuzzImage(f *testing.F) {
	for _, c := range corpus.Cases() {
		for _, archive := range c.Archives() {
			if len(archive) < 64<<10 {
				f.Add(archive)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := corpus.Over(data).Image()
		if err != nil {
			t.Fatal(err)
		}
		tree, err := rootfs.FromImage(t.Context(), img, t.TempDir(), rootfs.Limits{Entries: 1000, Bytes: 1 << 20}, func(int64) {})
		if err != nil {
			return
		}
		defer tree.Close()
		var b bytes.Buffer
		stats, err := initramfs.Write(&b, tree)
		if err != nil {
			return // an owner, a time or a device that does not fit
		}
		var entries []initramfs.Entry
		err = initramfs.List(&b, func(e initramfs.Entry) error {
			entries = append(entries, e)
			return nil
		})
		if err != nil || len(entries) != stats.Entries {
			t.Fatalf("%d entries, stats %+v: %v", len(entries), stats, err)
		}
		checkTree(t, tree, entries)
	})
}

// checkTree wants of the entries that they are the tree, in Walk's order after
// the root.
func checkTree(t *testing.T, tree *rootfs.Tree, entries []initramfs.Entry) {
	t.Helper()
	first := map[*rootfs.Inode]string{}
	err := tree.Walk(func(name string, n *rootfs.Inode) error {
		want := initramfs.Entry{
			Name: name, Type: n.Type, Perm: n.Perm, UID: n.UID, GID: n.GID, ModTime: entries[0].ModTime,
			Size: n.Size, Target: n.Target, Major: n.Major, Minor: n.Minor,
		}
		if n.Type == rootfs.Regular {
			sum := sha256.New()
			if _, err := io.Copy(sum, n.Open()); err != nil {
				return err
			}
			sum.Sum(want.Digest[:0])
		}
		if n.Type != rootfs.Symlink { // the kernel does not link them
			want.Link = first[n]
		}
		if first[n] == "" {
			first[n] = name
		}
		if entries[0] != want || entries[0].ModTime.Unix() != n.ModTime.Unix() {
			t.Errorf("got  %+v\nwant %+v", entries[0], want)
		}
		entries = entries[1:]
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
