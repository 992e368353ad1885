// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// FileChange is a name in the initramfs that differs. A name that only B has is
// added.
type FileChange struct {
	Path   string `json:"path"`   // without a leading slash
	Change string `json:"change"` // added, removed, changed
	// What differs of a file that changed, in this order: type, content, mode,
	// setuid, setgid, owner, device, target, links, time, capabilities, xattrs (all
	// others). Of one that was added or removed: setuid, setgid and capabilities
	// where it has them.
	What []string `json:"what"`
	A    *File    `json:"a"` // null when added
	B    *File    `json:"b"` // null when removed
}

// File is a file as one name shows it.
type File struct {
	Type   string    `json:"type"` // regular, directory, symlink, char device, block device, fifo
	Mode   string    `json:"mode"` // four octal digits: the first has setuid, setgid and sticky
	UID    int       `json:"uid"`
	GID    int       `json:"gid"`
	Time   time.Time `json:"time"` // of modification
	Size   int64     `json:"size"` // of a regular file, in bytes
	Digest string    `json:"digest,omitempty"`
	Device string    `json:"device,omitempty"` // MAJOR:MINOR
	Target string    `json:"target,omitempty"` // of a symlink
	Link   string    `json:"link,omitempty"`   // the first name of a file with several, the same for all of them

	Capabilities string            `json:"capabilities,omitempty"` // as fidelity.FormatCapability writes them
	Xattrs       map[string]string `json:"xattrs,omitempty"`       // the others, in hexadecimal
}

func (f *files) describe(name string) *File {
	e := f.entries[name]
	out := &File{Type: typeNames[e.Type], Mode: fmt.Sprintf("%04o", e.Perm), UID: e.UID, GID: e.GID, Time: e.ModTime, Size: e.Size, Target: e.Target, Link: e.Link}
	switch e.Type {
	case rootfs.Regular:
		out.Digest = "sha256:" + hex.EncodeToString(e.Digest[:])
	case rootfs.CharDevice, rootfs.BlockDevice:
		out.Device = fmt.Sprintf("%d:%d", e.Major, e.Minor)
	}
	out.Capabilities, out.Xattrs = describeXattrs(f.of(name))
	return out
}

var typeNames = map[rootfs.Type]string{
	rootfs.Regular: "regular", rootfs.Directory: "directory", rootfs.Symlink: "symlink",
	rootfs.CharDevice: "char device", rootfs.BlockDevice: "block device", rootfs.FIFO: "fifo",
}

const (
	setuid = 0o4000
	setgid = 0o2000
)

func compareFiles(a, b *files) []FileChange {
	out := []FileChange{}
	for name, ea := range a.entries {
		eb, ok := b.entries[name]
		if !ok {
			out = append(out, FileChange{name, "removed", a.privileges(name), a.describe(name), nil})
		} else if what := append(differences(ea, eb), xattrDifferences(a.of(name), b.of(name))...); len(what) > 0 {
			out = append(out, FileChange{name, "changed", what, a.describe(name), b.describe(name)})
		}
	}
	for name := range b.entries {
		if _, ok := a.entries[name]; !ok {
			out = append(out, FileChange{name, "added", b.privileges(name), nil, b.describe(name)})
		}
	}
	slices.SortFunc(out, func(x, y FileChange) int { return strings.Compare(x.Path, y.Path) })
	return out
}

// privileges names what gives rights to others.
func (f *files) privileges(name string) []string {
	out := privileges(f.entries[name].Perm)
	if f.of(name)[fidelity.CapabilityXattr] != "" {
		out = append(out, "capabilities")
	}
	return out
}

// privileges names the bits of a mode that give rights to others.
func privileges(perm uint32) []string {
	out := []string{}
	if perm&setuid != 0 {
		out = append(out, "setuid")
	}
	if perm&setgid != 0 {
		out = append(out, "setgid")
	}
	return out
}

func differences(a, b initramfs.Entry) []string {
	what := []string{}
	if a.Type != b.Type {
		what = append(what, "type")
	}
	if a.Type == b.Type && (a.Size != b.Size || a.Digest != b.Digest) {
		what = append(what, "content")
	}
	if a.Perm != b.Perm {
		what = append(append(what, "mode"), privileges(a.Perm^b.Perm)...)
	}
	if a.UID != b.UID || a.GID != b.GID {
		what = append(what, "owner")
	}
	if a.Type == b.Type && (a.Major != b.Major || a.Minor != b.Minor) {
		what = append(what, "device")
	}
	if a.Type == b.Type && a.Target != b.Target {
		what = append(what, "target")
	}
	if a.Link != b.Link {
		what = append(what, "links")
	}
	if !a.ModTime.Equal(b.ModTime) {
		what = append(what, "time")
	}
	return what
}

// names returns the keys of two maps, sorted.
func names[V any](a, b map[string]V) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}
