// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"strings"
	"testing"
)

func TestACL(t *testing.T) {
	tests := []struct {
		name, text string
		perm       uint32 // without the list, of 0777
		err        string
	}{
		{"the mode's own", "user::rwx,group::r-x,other::r--", 0o757, ""},
		{"short tags", "u::rw-,g::---,o::---", 0o707, ""},
		{"star's form", "user::rwx,user:joe:r--:1000,group::r-x,mask:rwx,other:---", 0o757, ""},
		{"order", "other::---,mask::r-x,group:5:r-x,group::rwx,user:7:r--,user::rwx", 0o777, ""},
		{"lines and comments", "user::rwx\nuser:7:rwx\t#effective:r-x\ngroup::---\nmask::r-x\nother::---\n", 0o707, ""},
		{"names", "user::rwx,user:joe:r--,group::--x,mask::rwx,other::---", 0o717, "without a number"},
		{"no mask", "user::rwx,user:7:r--,group::--x,other::---", 0o717, "incomplete"},
		{"two owners", "user::rwx,user::rwx,group::--x,other::---", 0o717, "2 entries with the tag 1"},
		{"nothing of others", "user::rwx,group::--x", 0o717, "incomplete"},
	}
	for _, test := range tests {
		_, value, err := acl(AccessACL, test.text)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if err := CheckACL(value); (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %v", test.name, err)
		}
		if got := WithoutACL(0o777, value); got != test.perm {
			t.Errorf("%s: mode %o", test.name, got)
		}
	}
	for _, text := range []string{"user", "user::rwz", "people::rwx", "mask", ":::"} {
		if _, err := parseACLText(text); err == nil || errors.Is(err, ErrACLName) {
			t.Errorf("%q is taken: %v", text, err)
		}
	}
	for _, value := range []string{"", "\x02\x00\x00\x00", "\x01\x00\x00\x00", "\x02\x00\x00\x00\x01", "\x02\x00\x00\x00\x03\x00\x01\x00\x00\x00\x00\x00"} {
		if err := CheckACL(value); err == nil {
			t.Errorf("%q is taken", value)
		}
	}
}

// What bsdtar says in its own text is what the kernel has.
func FuzzACLText(f *testing.F) {
	f.Add("user::rw-,user:bob:rw-:1000,group::r--,mask::rw-,other::r--")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := parseACLText(text)
		if err != nil {
			return
		}
		again, err := parseACL(formatACL(entries))
		if err != nil || len(entries) != len(again) {
			t.Errorf("%v, %v", again, err)
		}
	})
}
