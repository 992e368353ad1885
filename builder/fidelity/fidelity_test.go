// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

func TestDecode(t *testing.T) {
	want := New()
	want.Entries, want.Bytes, want.Added = 3, 1<<40, []string{".tenon/init"}
	want.Dropped = []Dropped{{By: "recipe redis", Entries: 2, Bytes: 9}, {By: "waiver **", Path: "big", Why: "size", Entries: 1}}
	want.Changed = []Change{{"a", "xattr user.x dropped", "waiver a", "extended attribute user.x"}}
	want.Xattrs = Xattrs{1, []Capability{{"bin/ping", "cap_net_raw=ep"}}}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decode(data); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, test := range []struct{ data, want string }{
		{"", "unexpected end"},
		{"{}", "no version field"},
		{`{"version":1}`, "unsupported version 1: this program reads version 2"},
		{`{"version":2,"lost":[]}`, `unknown field "lost"`},
		{`{"version":2,"Added":[]}`, `unknown field "Added"`},
		{`{"version":2,"added":[],"added":[]}`, "occurs twice"},
		{`{"version":2} {}`, "invalid character"},
		{`{"version":2,"entries":"x"}`, "cannot unmarshal"},
		{strings.Repeat(" ", limit.Fidelity+1), "larger than"},
	} {
		if _, err := Decode([]byte(test.data)); err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "fidelity report: ") {
			t.Errorf("%.40q: %v", test.data, err)
		}
	}
	if _, err := Decode([]byte(`{"version":3}`)); !errors.Is(err, strictjson.ErrVersion) {
		t.Error(err)
	}
}

func TestFormatCapability(t *testing.T) {
	for in, want := range map[string]string{
		"0100000200200000000000000000000000000000":         "cap_net_raw=ep",
		"0000000200200000000000000000000000000000":         "cap_net_raw=p",
		"0100000200340000003000000000000000000000":         "cap_net_bind_service=ep cap_net_admin,cap_net_raw=eip",
		"0100000200000000000000000001000000000000":         "cap_checkpoint_restore=ep",
		"01000002000000000000000000000080000000c0":         "63=eip 62=ei",
		"0100000200000000000000000000000000000000":         "=",
		"010000030020000000000000000000000000000000000000": "cap_net_raw=ep",
		"0100000300200000000000000000000000000000e8030000": "cap_net_raw=ep rootid=1000",
		"": "", "010000": "", "010000010020000000000000": "",
		"01000002002000000000000000000000000000": "", "0100000200200000000000000000000000000000e8030000": "",
	} {
		value, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := FormatCapability(value); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}
