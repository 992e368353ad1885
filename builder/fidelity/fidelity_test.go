// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/builder/bundle/limit"
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
	if got, err := Decode(bytes.NewReader(data)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, test := range []struct{ data, want string }{
		{"", "unexpected EOF"},
		{"{}", "no version field"},
		{`{"version":1}`, "unsupported version 1: this program reads version 2"},
		{`{"version":2,"lost":[]}`, `unknown field "lost"`},
		{`{"version":2,"Added":[]}`, `unknown field "Added"`},
		{`{"version":2,"added":[],"added":[]}`, "occurs twice"},
		{`{"version":2} {}`, "data after the end"},
		{`{"entries":1,"version":2}`, "no version field at its beginning"},
		{`{"version":2,"xattrs":{"count":1,"counts":1}}`, `unknown field "counts"`},
		{`{"version":2,"changed":[{"path":"a","path":"b"}]}`, "occurs twice"},
		{`{"version":2,"changed":[{"lost":"a"}]}`, `unknown field "lost"`},
		{`{"version":2,"changed":{}}`, "{ where a list is due"},
		{`{"version":2,"changed":[{}`, "unexpected"},
		{`[]`, "[ where { is due"},
		{`{"version":2,"entries":"x"}`, "cannot unmarshal"},
		{strings.Repeat(" ", limit.Report+1), "larger than"},
	} {
		if _, err := Decode(strings.NewReader(test.data)); err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "fidelity report: ") {
			t.Errorf("%.40q: %v", test.data, err)
		}
	}
	if _, err := Decode(strings.NewReader(`{"version":3,"what":{}}`)); !errors.Is(err, strictjson.ErrVersion) {
		t.Error(err)
	}
}

// A report of millions of empty entries is small, and takes gigabytes when it is decoded.
func TestDecodeLimits(t *testing.T) {
	lists := func(n int, element string) string {
		all := strings.TrimSuffix(strings.Repeat(element+",", n), ",")
		return `{"version":2,"dropped":[` + all + `],"changed":[` + all + `]}`
	}
	text := strings.Repeat("x", (limit.Report-100)/limit.ReportEntries-40)
	for _, test := range []struct{ name, report, want string }{
		{"most entries", lists(limit.ReportEntries/2, "{}"), ""},
		{"most entries of most bytes", lists(limit.ReportEntries/2, `{"by":"`+text+`"}`), ""},
		{"an entry more", lists(limit.ReportEntries/2+1, "{}"), "more than 100000 entries"},
		{"millions of entries", lists(2<<20, "{}"), "more than 100000 entries"},
		{"a byte more", `{"version":2,"added":["` + strings.Repeat("x", limit.Report) + `"]}`, "larger than 16777216 bytes"},
	} {
		var err error
		used := peak(func() { _, err = Decode(strings.NewReader(test.report)) })
		t.Logf("%s: %d MiB of memory for %d MiB", test.name, used>>20, len(test.report)>>20)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", test.name, err)
		}
		if used > limit.Report+64<<20 {
			t.Errorf("%s: %d bytes of memory", test.name, used)
		}
	}
	r := New()
	r.Changed = make([]Change, limit.ReportEntries)
	if _, err := r.Encode(); err != nil {
		t.Error(err)
	}
	r.Added = []string{"one more"}
	if _, err := r.Encode(); !errors.Is(err, ErrLimit) {
		t.Errorf("too many entries are written: %v", err)
	}
	r = New()
	r.Added = []string{strings.Repeat("x", limit.Report)}
	if _, err := r.Encode(); !errors.Is(err, ErrLimit) {
		t.Errorf("too many bytes are written: %v", err)
	}
}

// peak returns the most memory that objects took while f ran, in bytes above what they took before.
func peak(f func()) int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	used := func() int64 {
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	runtime.GC()
	before := used()
	done, most := make(chan struct{}), make(chan int64)
	go func() {
		highest := before
		for {
			highest = max(highest, used())
			select {
			case <-done:
				most <- highest - before
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	f()
	close(done)
	return <-most
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
