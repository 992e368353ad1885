// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cokernel

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/testdata/debian"
)

// dkmsEnv names the tree of DKMS in a guest.
const dkmsEnv = "TENON_DKMS"

// As docs/cokernel.md says: what 'make module' makes, DKMS takes, builds, signs, and
// installs.
func TestE2EDKMS(t *testing.T) {
	if !debian.Inside() {
		dir := t.TempDir()
		t.Setenv(dkmsEnv, dir)
		headers, err := filepath.Glob("/lib/modules/*-amd64/build")
		if err != nil || len(headers) == 0 {
			t.Fatalf("no headers of Debian's package linux-headers-amd64: %v", err)
		}
		release := filepath.Base(filepath.Dir(slices.Max(headers)))
		// DKMS makes a key where its tree is by default: not on this machine.
		sh(t, `make -s -C ../.. module MODULE="$1/module" && mkdir "$1/tree" "$1/src" && unshare -m sh -ec '
			mount -t tmpfs tmpfs /var/lib/dkms
			dkms add --dkmstree "$1/tree" --sourcetree "$1/src" "$1/module"
			dkms build --dkmstree "$1/tree" --sourcetree "$1/src" -k "$2" "$3"
		' sh "$1" "$2" "$3"`, dir, release, dkmsPackage(t))
	}
	(&debian.Machine{Small: true}).In(t, func() {
		// depmod takes a minute here.
		sh(t, `ln -s /proc/self/fd /dev/fd
			dkms install --no-depmod --dkmstree "$1/tree" --sourcetree "$1/src" -k "$(uname -r)" "$2"
			insmod "/lib/modules/$(uname -r)/updates/dkms/mortise.ko"`, os.Getenv(dkmsEnv), dkmsPackage(t))
		ok(t, "check", (&Backend{}).Check())
	})
}

func sh(t *testing.T, script string, args ...string) {
	t.Helper()
	out, err := exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}

// device.go is mortise.h, as a C compiler understands it: numbers, sizes, and where each
// field is.
func TestE2EHeader(t *testing.T) {
	header, err := os.ReadFile("module/mortise.h")
	if err != nil {
		t.Fatal(err)
	}
	var c, have bytes.Buffer
	c.WriteString("#include <stdio.h>\n#include <stddef.h>\n#include \"mortise.h\"\nint main(void)\n{\n")
	for _, x := range constants {
		fmt.Fprintf(&c, "\tprintf(\"%s %%llu\\n\", (unsigned long long)%s);\n", x.name, x.name)
		fmt.Fprintf(&have, "%s %d\n", x.name, x.value)
	}
	for _, s := range structs() {
		fmt.Fprintf(&c, "\tprintf(\"%s %%zu\\n\", sizeof(struct %s));\n", s.name, s.name)
		fmt.Fprintf(&have, "%s %d\n", s.name, s.size)
		fields := fieldsOf(t, string(header), s.name)
		if len(fields) != len(s.offsets) {
			t.Errorf("%s has the fields %q in C, and %d in Go", s.name, fields, len(s.offsets))
			continue
		}
		for i, field := range fields {
			fmt.Fprintf(&c, "\tprintf(\"%s.%s %%zu\\n\", offsetof(struct %s, %s));\n", s.name, field, s.name, field)
			fmt.Fprintf(&have, "%s.%s %d\n", s.name, field, s.offsets[i])
		}
	}
	c.WriteString("\treturn 0;\n}\n")
	program := filepath.Join(t.TempDir(), "header")
	if err := os.WriteFile(program+".c", c.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	sh(t, `gcc -Wall -Werror -I module -o "$1" "$1.c"`, program)
	want, err := exec.Command(program).Output()
	if err != nil {
		t.Fatal(err)
	}
	if have.String() != string(want) {
		t.Errorf("device.go has\n%s\nmortise.h has\n%s", &have, want)
	}
}

// fieldsOf are the names of the fields of a struct, in their order.
func fieldsOf(t *testing.T, header, name string) []string {
	t.Helper()
	_, body, found := strings.Cut(header, "struct "+name+" {")
	body, _, ends := strings.Cut(body, "};")
	if !found || !ends {
		t.Fatalf("mortise.h has no struct %s", name)
	}
	var out []string
	for _, m := range regexp.MustCompile(`(\w+)(?:\[\w+\])*;`).FindAllStringSubmatch(body, -1) {
		out = append(out, m[1])
	}
	return out
}
