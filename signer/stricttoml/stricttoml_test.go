// SPDX-License-Identifier: Apache-2.0

package stricttoml

import (
	"strings"
	"testing"
	"time"
)

func TestDecode(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"good", "name = \"x\"\n[[t]]\nnumber = 1\n", ""},
		{"unknown key", "name = \"x\"\nnames = \"y\"\n", `line 2: unknown key "names"`},
		{"upper case", "Name = \"x\"\n", `unknown key "Name": keys are in lower case`},
		{"no TOML", "name\n", "line 1: "},
		{"many unknown tables", strings.Repeat("[[x]]\n", 100_000), "more than 8192 lines"},
		{"many unknown keys on a line", "x = [" + strings.Repeat("{z=1},", 100_000) + "]", "more than 8192 keys"},
		{"just as many as there may be", strings.Repeat("[[x]]\n", maxEntries), `unknown key "x", and 8191 more`},
		{"few unknown tables", strings.Repeat("[[x]]\n", few), `line 1: unknown key "x"`},
		{"many unknown keys in known tables", strings.Repeat("[[t]]\nz=1\n", maxEntries/2), `unknown key "z", and 4095 more`},
	} {
		var into struct {
			Name string `toml:"name"`
			T    []struct {
				Number *int `toml:"number"`
			} `toml:"t"`
		}
		begin := time.Now()
		err := Decode([]byte(test.text), &into)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		t.Log(test.name, time.Since(begin).Round(time.Millisecond))
	}
}
