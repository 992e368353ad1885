// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"testing"

	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/kconfig/fragments"
)

func TestFirstError(t *testing.T) {
	tests := []struct{ name, stderr, want string }{
		{"nothing", "", ""},
		{"one line", "odd\n", "odd"},
		{"compiler", "In file included from a.c:1:\nb.h:2:3: warning: unused\nb.h:4:5: error: bad\nmake[1]: *** [a.o] Error 1\n", "b.h:4:5: error: bad"},
		{"header that is missing", "a.c:1:10: fatal error: x.h: No such file or directory\ncompilation terminated.\n", "a.c:1:10: fatal error: x.h: No such file or directory"},
		{"make", "warning\nmake: *** No rule to make target 'x'.  Stop.\nmore\n", "make: *** No rule to make target 'x'.  Stop."},
		{"neither", "first\n  last  \n", "last"},
		// What follows from a full disk is not the reason.
		{"disk full", "a.c:1: error: x\n/usr/bin/ld: final link failed: No space left on device\nmake: *** [x] Error 1\n", "/usr/bin/ld: final link failed: No space left on device"},
		{"assembler", "{standard input}: Assembler messages:\n{standard input}:7: Error: no such instruction\nmake[2]: *** [a.o] Error 1\n", "make[2]: *** [a.o] Error 1"},
	}
	for _, test := range tests {
		if got := firstError(test.stderr); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestSteps(t *testing.T) {
	for line, want := range map[string]bool{
		"  CC      init/main.o": true, "  HOSTCC  scripts/basic/fixdep": true, "  SYSHDR32 arch/x86": true,
		"make[1]: Entering directory": false, "CC x": false, "  kernel: x": false,
	} {
		if got := stepRE.MatchString(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
	if got := len(dryStepRE.FindAllString("set -e;   echo '  CC      init/main.o'; gcc\n  echo '  AR      x.a';\necho 'CC y'\n", -1)); got != 2 {
		t.Errorf("%d steps", got)
	}
}

// The fragment asks for nothing that a sealed kernel must not have.
func TestSealedFragment(t *testing.T) {
	f, err := fragments.Open("sealed")
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]string{}
	for _, s := range f.Settings {
		asked[s.Symbol] = s.Value
	}
	for _, s := range seal.On {
		if v := asked[s]; v == "n" {
			t.Errorf("%s=%s", s, v)
		}
	}
	for _, s := range seal.Off {
		if v := asked[s]; v == "y" || v == "m" {
			t.Errorf("%s=%s", s, v)
		}
	}
	if asked["TENON_SEAL"] != "y" || asked["MODULES"] != "n" {
		t.Error("the fragment is another one")
	}
}
