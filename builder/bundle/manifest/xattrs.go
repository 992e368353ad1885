// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// XattrsPath is where the build puts the table of extended attributes, which an
// initramfs has no place for. It is absent when there are none. PID 1 applies it
// before the app starts.
const XattrsPath = Dir + "/xattrs"

// MaxXattrTable is the largest table, in bytes.
const MaxXattrTable = 64 << 20

// Limits of the table's fields in bytes: the kernel's PATH_MAX, XATTR_NAME_MAX
// and XATTR_SIZE_MAX.
const (
	maxXattrPath  = 4096
	maxXattrName  = 255
	maxXattrValue = 64 << 10
)

// Xattr is one extended attribute of a file.
type Xattr struct {
	Path  string // without a leading slash, not following symlinks; empty is the root
	Name  string // with its namespace, for example "security.capability"
	Value []byte
}

// AppendXattr appends a record to a table: path, name and value, each as a
// length in 4 bytes, little endian, and its bytes.
func AppendXattr(table []byte, x Xattr) []byte {
	for _, field := range [][]byte{[]byte(x.Path), []byte(x.Name), x.Value} {
		table = binary.LittleEndian.AppendUint32(table, uint32(len(field)))
		table = append(table, field...)
	}
	return table
}

// EachXattr calls fn for every record of a table, until fn fails. Fields that are
// cut off or longer than the kernel takes are errors.
func EachXattr(table []byte, fn func(Xattr) error) error {
	for len(table) > 0 {
		var fields [3][]byte
		for i, limit := range [3]int{maxXattrPath, maxXattrName, maxXattrValue} {
			if len(table) < 4 {
				return errors.New("table of extended attributes: cut off")
			}
			n := int64(binary.LittleEndian.Uint32(table))
			if table = table[4:]; n > int64(limit) || n > int64(len(table)) {
				return fmt.Errorf("table of extended attributes: a field of %d bytes", n)
			}
			fields[i], table = table[:n], table[n:]
		}
		if err := fn(Xattr{string(fields[0]), string(fields[1]), fields[2]}); err != nil {
			return err
		}
	}
	return nil
}
