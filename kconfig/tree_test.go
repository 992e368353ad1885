// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func TestExpr(t *testing.T) {
	tree := parseTree(t, "config Y\n\tbool\nconfig N\n\tbool\nconfig M\n\ttristate\nconfig MODULES\n\tbool\n"+
		"config I\n\tint\nconfig H\n\thex\nconfig S\n\tstring\nconfig E\n\tstring\n")
	config, err := ParseConfig("c", []byte("CONFIG_Y=y\nCONFIG_M=m\nCONFIG_MODULES=y\nCONFIG_I=12\nCONFIG_H=0x1F\nCONFIG_S=\"a b\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	env := env{config, tree}
	for in, want := range map[string]string{
		"Y":                "y",
		"N":                "n",
		"NOT_DEFINED":      "n",
		"m":                "m",
		`"y"`:              "y",
		"I":                "n",
		"!M":               "m",
		"Y && M":           "m",
		"N || M && Y":      "m",
		"Y || N && N":      "y",
		"!(N || N)":        "y",
		"!N = y":           "y",
		"M = m":            "y",
		"M<y && M > n":     "y",
		"I >= 12":          "y",
		"I < 9":            "n",
		"H = 31":           "y",
		"H != 0x1f":        "n",
		`S = "a b"`:        "y",
		`E = ""`:           "y",
		`'x' != x`:         "n",
		"$(macro,a b)":     "?",
		"!$(macro)":        "?",
		"$(macro) && N":    "n",
		"$(macro) || Y":    "y",
		`"$(macro)" = "x"`: "?",
		"Y &&":             "expression ends too early",
		"Y N":              "unexpected N",
		"(Y":               "missing )",
		"= Y":              "unexpected =",
		"(Y) = N":          "unexpected =",
		"!" + strings.Repeat("(", maxDepth) + "Y": "expression of more than 100 levels",
	} {
		got := ""
		switch e, err := parseExpr(lexLine(t, in)); {
		case err != nil:
			got = err.Error()
		case env.eval(e).low != env.eval(e).high:
			got = "?"
		default:
			got = []string{"n", "m", "y"}[env.eval(e).low]
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestParseTreeRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"config\n":                                "Kconfig:1: config needs a symbol",
		"\nconfig A\n\tfrobnicate\n":              `Kconfig:3: unknown statement "frobnicate"`,
		"bool\n":                                  `Kconfig:1: unknown statement "bool"`,
		"if A\n\nconfig B\n":                      "Kconfig:1: if without endif",
		"menu \"a\"\nendif\n":                     "Kconfig:2: endif without if",
		"config A\n\tbool \"a\n":                  "Kconfig:2: unterminated string",
		"config A\n\tdepends on $(x\n":            "Kconfig:2: unterminated macro $(x",
		"config A\n\tdepends B\n":                 "Kconfig:2: depends without on",
		"config A\n\tdepends on B &&\n":           "Kconfig:2: expression ends too early",
		"config A\n\tselect B C\n":                "Kconfig:2: select needs a symbol",
		"config A\n\trange 1\n":                   "Kconfig:2: range needs two values",
		"source \"$(HEADER_ARCH)/K\"\n":           `Kconfig:1: cannot tell which file to include: ["$(HEADER_ARCH)/K"]`,
		"source \"gone\"\n":                       "Kconfig:1: open gone: file does not exist",
		"source \"./Kconfig\"\n":                  "Kconfig:1: includes itself, or too many files: Kconfig",
		"if A\nsource \"sub\"\nendif\n":           "Kconfig:2: sub:2: endif without if",
		strings.Repeat("if A\n", 101):             "Kconfig:101: more than 100 blocks in each other",
		strings.Repeat("#", maxFile+1):            "Kconfig: too large",
		"if " + strings.Repeat("A ", maxTokens+1): "Kconfig:1: statement of more than 1000 words",
	} {
		fsys := fstest.MapFS{"Kconfig": {Data: []byte(in)}, "sub": {Data: []byte("#\nendif\n")}}
		_, err := ParseTree(fsys, "Kconfig", "x86")
		if err == nil || err.Error() != want {
			t.Errorf("%.40q:\ngot  %v\nwant %s", in, err, want)
		}
	}
}

// Older kernels name variables as the shell does.
func TestSourceExpandsShellVariable(t *testing.T) {
	fsys := fstest.MapFS{
		"Kconfig":          {Data: []byte("source \"arch/$SRCARCH/Kconfig\"\n")},
		"arch/x86/Kconfig": {Data: []byte("config X86\n\tdef_bool y\n")},
	}
	tree, err := ParseTree(fsys, "Kconfig", "x86")
	if err != nil {
		t.Fatal(err)
	}
	s := tree.lookup("X86")
	if s == nil || s.typ != "bool" || s.entries[0].pos.String() != "arch/x86/Kconfig:1" {
		t.Errorf("got %+v", s)
	}
}

func parseTree(t *testing.T, text string) *Tree {
	t.Helper()
	tree, err := ParseTree(fstest.MapFS{"Kconfig": {Data: []byte(text)}}, "Kconfig", "x86")
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func lexLine(t *testing.T, line string) []token {
	t.Helper()
	// Without "if" the lexer takes A = B for an assignment to a macro.
	tokens, _, err := (&lexer{src: "if " + line}).statement()
	if err != nil {
		t.Fatal(err)
	}
	return tokens[1:]
}

// FuzzParseTree also has each symbol of each tree explained.
func FuzzParseTree(f *testing.F) {
	dirs, err := os.ReadDir("testdata")
	if err != nil {
		f.Fatal(err)
	}
	for _, dir := range dirs {
		if data, err := os.ReadFile("testdata/" + dir.Name() + "/Kconfig"); err == nil {
			f.Add(data, []byte("config B\n\tbool\n"), "CONFIG_A=y\nCONFIG_B=m\nCONFIG_X=12\nCONFIG_CMDLINE=\"\n")
		}
	}
	f.Add([]byte("if A\nsource \"$(SRCARCH)\"\nendif\n"), []byte("source \"Kconfig\""), "")
	f.Fuzz(func(t *testing.T, root, sub []byte, config string) {
		tree, err := ParseTree(fstest.MapFS{"Kconfig": {Data: root}, "x86": {Data: sub}}, "Kconfig", "x86")
		if err != nil {
			return
		}
		c, err := ParseConfig("c", []byte(config))
		if err != nil {
			return
		}
		for _, value := range []string{"y", "m", "n", "7", "0x7", `"s"`} {
			r := &Request{}
			for name := range tree.symbols {
				r.Settings = append(r.Settings, Setting{Symbol: name, Value: value})
			}
			if err := Check(r, c, tree); err != nil && strings.Contains(err.Error(), "reason: ") {
				t.Error(err)
			}
		}
	})
}

// FuzzExpr checks that an expression printed and read again is the same, and
// that something is blamed for exactly those that certainly fail.
func FuzzExpr(f *testing.F) {
	for _, seed := range []string{"A", "!A && (B || $(x,y))", `A = "x" || B != 'y'`, "!(A<B) && m", "A>=0x10||B<=9"} {
		f.Add(seed, "y", "12")
	}
	f.Fuzz(func(t *testing.T, text, a, b string) {
		tokens, _, err := (&lexer{src: "if " + text}).statement()
		if err != nil {
			return
		}
		e, err := parseExpr(tokens[1:])
		if err != nil {
			return
		}
		again, err := parseExpr(lexLine(t, e.String()))
		if err != nil || again.String() != e.String() {
			t.Fatalf("%s became %s: %v", e, again, err)
		}
		tree := parseTree(t, "config A\n\ttristate\nconfig B\n\tint\n")
		env := env{&Config{map[string]string{"A": a, "B": b}}, tree}
		for want := no; want <= yes; want++ {
			if blamed := env.blame(e, want); len(blamed) > 0 != (env.eval(e).high < want) {
				t.Errorf("%s: level %d: %v is blamed", e, want, blamed)
			}
		}
	})
}
