// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"encoding/hex"
	"fmt"
	"maps"
	"strings"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/initramfs"
)

// files is what an initramfs holds, by name; "." is the root.
type files struct {
	entries map[string]initramfs.Entry
	xattrs  map[string]map[string]string // of the first name of an inode
	table   string
}

// xattrsName is where an archive has the table of extended attributes.
var xattrsName = strings.TrimPrefix(manifest.XattrsPath, "/")

func newFiles() *files {
	return &files{entries: map[string]initramfs.Entry{}, xattrs: map[string]map[string]string{}}
}

func (f *files) add(e initramfs.Entry) error {
	if e.Name == xattrsName {
		f.table, e.Content = e.Content, ""
	}
	if e.Link != "" { // and so the first name knows that it is not the only one
		first := f.entries[e.Link]
		first.Link = e.Link
		f.entries[e.Link] = first
	}
	f.entries[e.Name] = e
	return nil
}

// readXattrs reads the table, as PID 1 will.
func (f *files) readXattrs() error {
	err := manifest.EachXattr([]byte(f.table), func(x manifest.Xattr) error {
		name := x.Path
		if name == "" {
			name = "."
		}
		if _, ok := f.entries[name]; !ok {
			return fmt.Errorf("table of extended attributes: there is no file %q", name)
		}
		if link := f.entries[name].Link; link != "" { // PID 1 takes any name
			name = link
		}
		if f.xattrs[name] == nil {
			f.xattrs[name] = map[string]string{}
		}
		f.xattrs[name][x.Name] = string(x.Value)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: initramfs: %w", bundle.ErrInvalid, err)
	}
	return nil
}

// of returns the extended attributes of a file by any of its names.
func (f *files) of(name string) map[string]string {
	if link := f.entries[name].Link; link != "" {
		name = link
	}
	return f.xattrs[name]
}

// describeXattrs splits attributes into capabilities and the rest, for people
// and for JSON.
func describeXattrs(x map[string]string) (capabilities string, rest map[string]string) {
	for name, value := range x {
		text := hex.EncodeToString([]byte(value))
		if name != fidelity.CapabilityXattr {
			if rest == nil {
				rest = map[string]string{}
			}
			rest[name] = text
			continue
		}
		var err error
		if capabilities, err = fidelity.FormatCapability([]byte(value)); err != nil {
			capabilities = "malformed " + text
		}
	}
	return capabilities, rest
}

// xattrDifferences names which kinds of extended attributes differ.
func xattrDifferences(a, b map[string]string) []string {
	what := []string{}
	if a[fidelity.CapabilityXattr] != b[fidelity.CapabilityXattr] {
		what = append(what, "capabilities")
	}
	_, restA := describeXattrs(a)
	_, restB := describeXattrs(b)
	if !maps.Equal(restA, restB) {
		what = append(what, "xattrs")
	}
	return what
}
