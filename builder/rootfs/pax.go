// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// What PAX records mean beside those that package tar reads for us. docs/layers.md has the list
// of all that GNU tar, bsdtar and star write.
const (
	schilyXattr     = "SCHILY.xattr."        // + name: the value as it is
	libarchiveXattr = "LIBARCHIVE.xattr."    // + name, with percent signs: the value in base64
	selinuxLabel    = "RHT.security.selinux" // GNU tar
	schilyACL       = "SCHILY.acl."
	schilyFlags     = "SCHILY.fflags" // chattr(1)
	schilyMajor     = "SCHILY.devmajor"
	schilyMinor     = "SCHILY.devminor"
)

// holding are file flags that take something away from whoever may write. All others say how a
// disk is to store a file.
var holding = []string{"append", "immutable", "sappnd", "sappend", "uappnd", "uappend", "schg", "schange", "simmutable", "uchg", "uchange", "uimmutable", "sunlnk", "uunlnk"}

// FileFlags is the name under which an inode has flags of chattr(1) among its extended attributes.
const FileFlags = "file flags"

// refusedRecord says why a layer with a record is no layer, or nothing.
func refusedRecord(key string) error {
	switch {
	case strings.HasPrefix(key, "GNU.volume."), key == "GNU.dumpdir":
		return fmt.Errorf("record %.40q: incremental archives and parts of one are not layers", key)
	case key == "SUN.holesdata":
		return fmt.Errorf("record %.40q: sparse files of Solaris are not supported", key)
	}
	return nil
}

// meaningful says whether a record changes what is unpacked.
func meaningful(key string) bool {
	switch key {
	case "path", "linkpath", "size", "uid", "gid", "mtime", selinuxLabel, schilyFlags, schilyMajor, schilyMinor:
		return true
	}
	for _, prefix := range []string{schilyXattr, libarchiveXattr, schilyACL, "GNU.sparse."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return refusedRecord(key) != nil
}

// checkGlobal refuses what a global header would say of all entries after it,
// which package tar ignores. Comments, as git archive makes them, say nothing.
func checkGlobal(h *tar.Header) error {
	for key := range h.PAXRecords {
		if meaningful(key) {
			return fmt.Errorf("global header that sets %.200q: not supported", key)
		}
	}
	return nil
}

// xattrs returns the extended attributes that the header carries, in whatever form. Every string is
// a copy: see newChange.
func xattrs(h *tar.Header) (map[string]string, error) {
	out := map[string]string{}
	for key, value := range h.PAXRecords {
		if err := refusedRecord(key); err != nil {
			return nil, err
		}
		name, value, err := xattr(key, value)
		if err != nil {
			return nil, fmt.Errorf("record %.200q: %w", key, err)
		}
		if name == "" {
			continue
		}
		if _, there := out[name]; there && !strings.HasPrefix(key, schilyXattr) {
			continue // bsdtar writes an attribute twice, and only this form has it as it is
		}
		out[strings.Clone(name)] = strings.Clone(value)
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// xattr makes an extended attribute of a record. The name is empty where the record is none.
func xattr(key, value string) (string, string, error) {
	if name, ok := strings.CutPrefix(key, schilyXattr); ok {
		return name, value, nil
	}
	if name, ok := strings.CutPrefix(key, libarchiveXattr); ok {
		name, err := url.PathUnescape(name)
		if err != nil {
			return "", "", err
		}
		data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		return name, string(data), err
	}
	switch key {
	case selinuxLabel:
		return "security.selinux", value + "\x00", nil // as setfilecon(3) stores it
	case schilyACL + "access":
		return acl(AccessACL, value)
	case schilyACL + "default":
		return acl(DefaultACL, value)
	case schilyACL + "ace":
		return "system.nfs4_acl", value, nil
	case schilyFlags:
		flags := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
		if slices.ContainsFunc(flags, func(f string) bool { return slices.Contains(holding, f) }) {
			return FileFlags, value, nil
		}
	}
	return "", "", nil
}

// acl gives a list the form of the extended attribute, and leaves one with names alone as it is.
func acl(name, text string) (string, string, error) {
	entries, err := parseACLText(text)
	switch {
	case errors.Is(err, ErrACLName):
		return name, text, nil
	case err != nil:
		return "", "", err
	case len(entries) == 0: // a directory without a default list
		return "", "", nil
	}
	return name, formatACL(entries), nil
}

// deviceNumbers returns the numbers of a device: those of bsdtar where they are too large for its headers.
func deviceNumbers(h *tar.Header) (major, minor uint64, err error) {
	major, minor = uint64(h.Devmajor), uint64(h.Devminor)
	for key, into := range map[string]*uint64{schilyMajor: &major, schilyMinor: &minor} {
		value, ok := h.PAXRecords[key]
		if !ok {
			continue
		}
		if *into, err = strconv.ParseUint(value, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("record %q: %.40q is not a number", key, value)
		}
	}
	return major, minor, nil
}
