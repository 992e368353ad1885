// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The extended attributes that hold POSIX access control lists, acl(5).
const (
	AccessACL  = "system.posix_acl_access"
	DefaultACL = "system.posix_acl_default"
)

// Tags of entries: include/uapi/linux/posix_acl.h. The kernel wants entries in their order.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclVersion = 2         // include/uapi/linux/posix_acl_xattr.h
	aclNoID    = 1<<32 - 1 // of entries that name nobody
	aclMaxID   = aclNoID - 1
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// ErrACLName says that a list names a user or group without its number, as GNU tar writes it
// without --numeric-owner: what a name means can change with every layer.
var ErrACLName = errors.New("it names a user or a group without a number")

// parseACLText reads the text form of SCHILY.acl.access and SCHILY.acl.default: entries
// TAG:NAME:PERMISSIONS[:NUMBER], separated by commas or new lines. The error wraps ErrACLName
// where only the number of a name is missing; all permissions are there then.
func parseACLText(text string) ([]aclEntry, error) {
	var entries []aclEntry
	var nameless error
	for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		field, _, _ = strings.Cut(field, "#") // what acl_to_text(3) notes of a mask
		field = strings.TrimPrefix(strings.TrimSpace(field), "default:")
		if field == "" {
			continue
		}
		parts := strings.Split(field, ":")
		if len(parts) == 2 && slices.Contains([]string{"mask", "m", "other", "o"}, parts[0]) {
			parts = slices.Insert(parts, 1, "") // star's form
		}
		if len(parts) < 3 {
			return nil, fmt.Errorf("%.40q is not an entry of an access control list", field)
		}
		e, err := newACLEntry(parts[0], parts[1:])
		if err != nil && !errors.Is(err, ErrACLName) {
			return nil, fmt.Errorf("%.40q: %w", field, err)
		}
		if err != nil {
			nameless = fmt.Errorf("%.40q: %w", field, err)
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(a, b aclEntry) int { return int(a.tag) - int(b.tag) })
	return entries, nameless
}

// newACLEntry reads name, permissions and, where the archive has it, the number of the name.
func newACLEntry(tag string, fields []string) (e aclEntry, err error) {
	e.id = aclNoID
	name := fields[0]
	switch {
	case (tag == "user" || tag == "u") && name == "":
		e.tag = aclUserObj
	case tag == "user" || tag == "u":
		e.tag = aclUser
	case (tag == "group" || tag == "g") && name == "":
		e.tag = aclGroupObj
	case tag == "group" || tag == "g":
		e.tag = aclGroup
	case tag == "mask" || tag == "m":
		e.tag = aclMask
	case tag == "other" || tag == "o":
		e.tag = aclOther
	default:
		return e, errors.New("unknown tag")
	}
	for _, c := range fields[1] {
		bit := strings.IndexRune("xwr", c)
		if bit < 0 && c != '-' {
			return e, errors.New("permissions are of r, w, x and -")
		}
		if bit >= 0 {
			e.perm |= 1 << bit
		}
	}
	if e.tag != aclUser && e.tag != aclGroup {
		return e, nil
	}
	for _, number := range append(fields[2:], name) {
		if id, err := strconv.ParseUint(number, 10, 32); err == nil && id <= aclMaxID {
			e.id = uint32(id)
			return e, nil
		}
	}
	return e, ErrACLName
}

// parseACL reads the form that the kernel has in the extended attribute.
func parseACL(value string) ([]aclEntry, error) {
	data := []byte(value)
	if len(data) < 4 || len(data)%8 != 4 || binary.LittleEndian.Uint32(data) != aclVersion {
		return nil, errors.New("it has not the form that the kernel takes")
	}
	var entries []aclEntry
	for data = data[4:]; len(data) > 0; data = data[8:] {
		entries = append(entries, aclEntry{binary.LittleEndian.Uint16(data), binary.LittleEndian.Uint16(data[2:]), binary.LittleEndian.Uint32(data[4:])})
	}
	return entries, nil
}

func formatACL(entries []aclEntry) string {
	out := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return string(out)
}

// CheckACL says whether the kernel takes the value of an access control list, by its own rules
// (posix_acl_valid() in fs/posix_acl.c). A list that was archived with names alone is an error that
// wraps ErrACLName.
func CheckACL(value string) error {
	entries, err := parseACL(value)
	if err != nil {
		if _, text := parseACLText(value); errors.Is(text, ErrACLName) {
			return text
		}
		return err
	}
	count := map[uint16]int{}
	for i, e := range entries {
		count[e.tag]++
		named := e.tag == aclUser || e.tag == aclGroup
		switch {
		case i > 0 && e.tag < entries[i-1].tag:
			return errors.New("its entries are out of order")
		case e.perm > 7 || named && e.id > aclMaxID:
			return fmt.Errorf("entry %d is none", i)
		}
	}
	for tag, n := range count {
		if n > 1 && tag != aclUser && tag != aclGroup || !slices.Contains([]uint16{aclUserObj, aclUser, aclGroupObj, aclGroup, aclMask, aclOther}, tag) {
			return fmt.Errorf("%d entries with the tag %d", n, tag)
		}
	}
	if count[aclUserObj]*count[aclGroupObj]*count[aclOther] != 1 || count[aclMask] == 0 && count[aclUser]+count[aclGroup] > 0 {
		return errors.New("it is incomplete")
	}
	return nil
}

// WithoutACL returns the permissions of a file that loses the access list value. With a list, the
// bits of the group are the mask, the most that anyone named may do: without it, they must say what
// the group itself may.
func WithoutACL(perm uint32, value string) uint32 {
	entries, err := parseACL(value)
	if err != nil {
		entries, _ = parseACLText(value)
	}
	for _, e := range entries {
		if e.tag == aclGroupObj {
			perm &^= 0o070 &^ (uint32(e.perm) << 3)
		}
	}
	return perm
}
