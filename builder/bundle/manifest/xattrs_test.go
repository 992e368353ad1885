// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func TestXattrs(t *testing.T) {
	want := []Xattr{
		{"bin/ping", "security.capability", []byte("\x01\x00\x00\x02")}, {"", "trusted.x", []byte{}}, {"a\xff\nb", "security.ima", bytes.Repeat([]byte{7}, maxXattrValue)},
	}
	var table []byte
	for _, x := range want {
		table = AppendXattr(table, x)
	}
	var got []Xattr
	if err := EachXattr(table, func(x Xattr) error { got = append(got, x); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, want, func(a, b Xattr) bool { return a.Path == b.Path && a.Name == b.Name && bytes.Equal(a.Value, b.Value) }) {
		t.Errorf("got %v", got)
	}
	for cut := range len(AppendXattr(nil, want[0])) {
		if err := EachXattr(table[:cut], func(Xattr) error { return nil }); (err == nil) != (cut == 0) {
			t.Errorf("cut to %d bytes: %v", cut, err)
		}
	}
	if err := EachXattr(AppendXattr(nil, Xattr{Name: "security.x", Value: make([]byte, maxXattrValue+1)}), func(Xattr) error { return nil }); err == nil {
		t.Error("a value that the kernel does not take")
	}
	stop := errors.New("stop")
	if err := EachXattr(table, func(Xattr) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func FuzzXattrs(f *testing.F) {
	f.Add(AppendXattr(AppendXattr(nil, Xattr{"a", "security.capability", []byte("x")}), Xattr{"b", "trusted.y", nil}))
	f.Fuzz(func(t *testing.T, table []byte) {
		var again []byte
		if err := EachXattr(table, func(x Xattr) error { again = AppendXattr(again, x); return nil }); err == nil && !bytes.Equal(again, table) {
			t.Errorf("%x became %x", table, again)
		}
	})
}
