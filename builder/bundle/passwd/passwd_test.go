// SPDX-License-Identifier: Apache-2.0

package passwd

import (
	"reflect"
	"strings"
	"testing"
)

const (
	testPasswd = `root:x:0:0:root:/root:/bin/sh
# a comment
broken:x:zero:0::/:
negative:x:-1:0::/:
+::::::
app:x:1000:1001:An App:/home/app:/bin/sh
again:x:1000:7::/elsewhere:
short:x:5:6
4242:x:77:77::/digits:
`
	testGroup = `root:x:0:
app:x:1001:
audio:x:29:other,app
broken:x:none:app
video:x:44:app
`
)

func TestResolve(t *testing.T) {
	tests := []struct {
		spec string
		want Identity
		err  string
	}{
		{"", Identity{0, 0, []uint32{0}, "/root"}, ""},
		{"root", Identity{0, 0, []uint32{0}, "/root"}, ""},
		{"app", Identity{1000, 1001, []uint32{1001, 29, 44}, "/home/app"}, ""},
		{"1000", Identity{1000, 1001, []uint32{1001, 29, 44}, "/home/app"}, ""}, // the first entry
		{"app:audio", Identity{1000, 29, []uint32{29}, "/home/app"}, ""},
		{"app:99", Identity{1000, 99, []uint32{99}, "/home/app"}, ""},
		{"app:", Identity{1000, 1001, []uint32{1001, 29, 44}, "/home/app"}, ""},
		{":44", Identity{0, 44, []uint32{44}, "/root"}, ""},
		{"555", Identity{555, 0, []uint32{0}, "/"}, ""},
		{"555:556", Identity{555, 556, []uint32{556}, "/"}, ""},
		{"4242", Identity{4242, 0, []uint32{0}, "/"}, ""}, // a number is not a name
		{"short", Identity{5, 6, []uint32{6}, "/"}, ""},
		{"ghost", Identity{}, `user "ghost" is not in /etc/passwd`},
		{"broken", Identity{}, `user "broken" is not`},
		{"negative", Identity{}, `user "negative" is not`},
		{"app:ghosts", Identity{}, `group "ghosts" is not in /etc/group`},
		{"app:broken", Identity{}, `group "broken" is not`},
		{"-1", Identity{}, "out of range"},
		{"4294967295", Identity{}, "out of range"},
		{"0:2147483648", Identity{}, "out of range"},
	}
	for _, test := range tests {
		got, err := Resolve(test.spec, []byte(testPasswd), []byte(testGroup))
		switch {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: got %v, want %q", test.spec, err, test.err)
			}
		case err != nil || !reflect.DeepEqual(*got, test.want):
			t.Errorf("%q: got %+v, %v, want %+v", test.spec, got, err, test.want)
		}
	}
}

func TestResolveWithoutFiles(t *testing.T) {
	got, err := Resolve("", nil, nil)
	if want := (Identity{0, 0, []uint32{0}, "/"}); err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// No file and no spec may make root of someone who is not.
func FuzzResolve(f *testing.F) {
	f.Add("app", testPasswd, testGroup)
	f.Add("1000:app", testPasswd, testGroup)
	f.Add("x:y", "x:::", "y:")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		id, err := Resolve(spec, []byte(passwd), []byte(group))
		if err != nil {
			return
		}
		if len(id.Groups) == 0 || id.Groups[0] != id.GID || id.Home == "" {
			t.Errorf("incomplete: %+v", id)
		}
		name, _, _ := strings.Cut(spec, ":")
		if _, numeric, _ := parseID(name); name != "" && !numeric && id.UID == 0 && !strings.Contains(passwd, ":0") && !strings.Contains(passwd, ":+0") && !strings.Contains(passwd, ":-0") {
			t.Errorf("%q became root with %q", spec, passwd)
		}
	})
}
