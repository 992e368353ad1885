// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseFragment(t *testing.T) {
	const in = "# a comment, CONFIG_X=y in it\n\n  \t\n#CONFIG_Y=y\n" +
		"CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=n\nCONFIG_D=-1\nCONFIG_E=0xfF\n" +
		`CONFIG_F="a \"b\" \\ \c # = $x é"` + "\n" + `CONFIG_6lower=""`
	f, err := ParseFragment("x.config", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	at := func(line int) Pos { return Pos{"x.config", line} }
	want := []Setting{
		{"A", "y", at(5)}, {"B", "n", at(6)}, {"C", "n", at(7)}, {"D", "-1", at(8)}, {"E", "0xfF", at(9)},
		{"F", `"a \"b\" \\ c # = $x é"`, at(10)}, {"6lower", `""`, at(11)},
	}
	if !reflect.DeepEqual(f.Settings, want) {
		t.Errorf("got %v\nwant %v", f.Settings, want)
	}
}

func TestParseFragmentRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"CONFIG_A":                           `f:1: "CONFIG_A" is neither CONFIG_X=value nor a comment`,
		" CONFIG_A=y":                        `f:1: " CONFIG_A=y" is neither CONFIG_X=value nor a comment`,
		"A=y":                                `f:1: "A=y" is neither CONFIG_X=value nor a comment`,
		"\n\nCONFIG_A=":                      `f:3: A: no value (an empty string is "")`,
		"CONFIG_=y":                          `f:1: "CONFIG_=y" is neither CONFIG_X=value nor a comment`,
		"# CONFIG_ is not set":               `f:1: "# CONFIG_ is not set" is not exactly "# CONFIG_X is not set"`,
		"CONFIG_A B=y":                       `f:1: bad symbol name "A B"`,
		"CONFIG_A=Y":                         `f:1: A: value "Y" is not y, m, n, a number, a 0x number or a quoted string`,
		"CONFIG_A=y ":                        `f:1: A: value "y " is not y, m, n, a number, a 0x number or a quoted string`,
		"CONFIG_A=007":                       `f:1: A: value "007" is not y, m, n, a number, a 0x number or a quoted string`,
		"CONFIG_A=y\r\n":                     `f:1: A: value "y\r" has control characters or is not UTF-8`,
		"CONFIG_A=\"\xff\"":                  `f:1: A: value "\"\xff\"" has control characters or is not UTF-8`,
		`CONFIG_A="x`:                        `f:1: A: unterminated string "x`,
		`CONFIG_A="x\`:                       `f:1: A: unterminated string "x\`,
		`CONFIG_A="x" y`:                     `f:1: A: text after the end of string "x"`,
		`CONFIG_A="$(shell id)"`:             `f:1: A: value "$(shell id)" has a $( or ${, which make would expand`,
		"CONFIG_A=y\nCONFIG_B=y\nCONFIG_A=y": "f:3: A is already set on line 1",
		"# CONFIG_A is not set, really":      `f:1: "# CONFIG_A is not set, really" is not exactly "# CONFIG_X is not set"`,
		"#CONFIG_A is not set":               `f:1: "#CONFIG_A is not set" is not exactly "# CONFIG_X is not set"`,
		"# CONFIG_é is not set":              `f:1: bad symbol name "é"`,
		strings.Repeat("#", maxLine+1):       "f:1: line of more than 16384 bytes",
		strings.Repeat("\n", maxFragment+1):  "f: has 1048577 bytes, more than 1048576",
	} {
		_, err := ParseFragment("f", []byte(in))
		if err == nil || err.Error() != want {
			t.Errorf("%.40q:\ngot  %v\nwant %s", in, err, want)
		}
	}
}

func TestMergeAndFormat(t *testing.T) {
	a := parse(t, "net.config", "CONFIG_Z=y\nCONFIG_IPV6=y\nCONFIG_H=0xAB\n")
	b := parse(t, "more.config", "CONFIG_A=n\nCONFIG_IPV6=y\nCONFIG_H=0xab\n")
	made := &Fragment{Name: "build", Settings: []Setting{{"CMDLINE", Quote(`a="b" \`), Pos{File: "build"}}}}
	const want = "# CONFIG_A is not set\nCONFIG_CMDLINE=\"a=\\\"b\\\" \\\\\"\nCONFIG_H=0xAB\nCONFIG_IPV6=y\nCONFIG_Z=y\n"
	r, err := Merge(a, b, made)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(r.Format()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := r.Settings[3].Pos.String(); got != "net.config:2" {
		t.Errorf("IPV6 is at %s", got)
	}
}

func TestMergeNamesAllConflicts(t *testing.T) {
	_, err := Merge(
		parse(t, "net.config", "CONFIG_IPV6=y\nCONFIG_HZ=100\n"),
		parse(t, "tiny.config", "\n# CONFIG_IPV6 is not set\nCONFIG_HZ=250\n"),
		&Fragment{Name: "build", Settings: []Setting{{"CMDLINE", "\"\nCONFIG_EVIL=y", Pos{}}}},
	)
	const want = "IPV6: net.config:1 wants y, tiny.config:2 wants n\n" +
		"HZ: net.config:2 wants 100, tiny.config:3 wants 250\n" +
		`build: CMDLINE: value "\"\nCONFIG_EVIL=y" has control characters or is not UTF-8`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if ce := (*ConflictError)(nil); !errors.As(err, &ce) || ce.Second.Value != "n" {
		t.Errorf("no ConflictError for IPV6: %v", ce)
	}
}

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig(".config", []byte("#\n# CONFIG_A is not set by anyone\n# CONFIG_B is not set\r\n"+
		"CONFIG_C=m\nCONFIG_D=\nCONFIG_E=\"x\"\nCONFIG_C=y\n"))
	if err != nil {
		t.Fatal(err)
	}
	for symbol, want := range map[string]string{"A": "n", "B": "n", "C": "y", "D": "", "E": `"x"`, "F": "n"} {
		if got := c.Value(symbol); got != want {
			t.Errorf("%s is %q, want %q", symbol, got, want)
		}
	}
	if got := strings.Join(c.Symbols(), ""); got != "BCDE" {
		t.Errorf("symbols %s", got)
	}
	if _, err := ParseConfig(".config", []byte("\nCONFIG_X")); err == nil || !strings.HasPrefix(err.Error(), ".config:2: ") {
		t.Errorf("a line that was cut off: %v", err)
	}
}

func parse(t *testing.T, name, text string) *Fragment {
	t.Helper()
	f, err := ParseFragment(name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func FuzzParseFragment(f *testing.F) {
	f.Add([]byte("# c\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=0x1f\nCONFIG_D=\"a\\\"b\\\\\"\nCONFIG_E=-12\n"))
	f.Add([]byte("#CONFIG_B  is not set\nCONFIG_D=\"\\"))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := ParseFragment("f", data)
		if err != nil {
			return
		}
		r, err := Merge(first)
		if err != nil {
			t.Fatal(err)
		}
		text := r.Format()
		second, err := ParseFragment("f", text)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		again, err := Merge(second)
		if err != nil || len(second.Settings) != len(first.Settings) || !bytes.Equal(again.Format(), text) {
			t.Fatalf("%v\nfirst\n%s\nsecond\n%s", err, text, again.Format())
		}
		c, err := ParseConfig("c", text)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range first.Settings {
			if got := c.Value(s.Symbol); got != s.Value {
				t.Errorf("%s is %q, want %q", s.Symbol, got, s.Value)
			}
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("#\n# Linux\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("c", data)
		if err == nil && len(c.values) > 0 && c.Value("NEVER SET") != "n" {
			t.Error("a symbol out of nothing")
		}
	})
}
