// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/recipes"
)

// Whole bundles are compared in the tests of cmd/tenon.

func TestCompareFields(t *testing.T) {
	tests := []struct{ name, a, b, want string }{
		{"same", `{"a":[1,{"b":2}]}`, `{"a":[1,{"b":2}]}`, ""},
		{"value", `{"a":{"b":1}}`, `{"a":{"b":2}}`, "a.b: 1 2"},
		{"large numbers", `{"a":9007199254740993}`, `{"a":9007199254740992}`, "a: 9007199254740993 9007199254740992"},
		{"only in one", `{"a":"x"}`, `{"b":{"c":true}}`, `a: "x" null; b.c: null true`},
		{"type", `{"a":"1"}`, `{"a":1}`, `a: "1" 1`},
		{"object for a value", `{"a":{"b":1}}`, `{"a":1}`, `a: {"b":1} 1`},
		{"list by position", `{"a":["x","y"]}`, `{"a":["y","x"]}`, `a: ["x","y"] ["y","x"]`},
		{"environment", `{"e":["A=1","B=2"]}`, `{"e":["B=2","A=3","C="]}`, `e.A: "1" "3"; e.C: null ""`},
		{"environment in another order", `{"e":["A=1","B=2"]}`, `{"e":["B=2","A=1"]}`, `e: ["A=1","B=2"] ["B=2","A=1"]`},
		{"environment with a name twice", `{"e":["A=1","A=2"]}`, `{"e":["A=1"]}`, `e: ["A=1","A=2"] ["A=1"]`},
		{"environment that is new", `{}`, `{"e":["A=1"]}`, `e.A: null "1"`},
		{"names", `{"p":[{"name":"x","v":1}]}`, `{"p":[{"name":"y"},{"name":"x","v":2}]}`, `p.x.v: 1 2; p.y.name: null "y"`},
		{"kinds", `{"d":[{"kind":"net","n":1}]}`, `{"d":[{"kind":"net","n":2}]}`, `d.net.n: 1 2`},
		{"empty", `{"a":{}}`, `{}`, `a: {} null`},
	}
	for _, test := range tests {
		var lines []string
		for _, c := range compareFields(object(t, test.a), object(t, test.b)) {
			a, _ := json.Marshal(c.A)
			b, _ := json.Marshal(c.B)
			lines = append(lines, fmt.Sprintf("%s: %s %s", c.Field, a, b))
		}
		if got := strings.Join(lines, "; "); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

// Secret values are compared, and shown in no form.
func TestCompareSecrets(t *testing.T) {
	secret := []manifest.Parameter{{Name: "T", Secret: true}, {Name: "P"}}
	of := func(text string) map[string]any {
		v := object(t, text)
		hide(v, secret)
		return v
	}
	for _, test := range []struct{ name, a, b, want string }{
		{"same", `{"parameters":[{"name":"T","default":"hunter1"},{"name":"P"}],"app":{"env":["T=hunter2"]}}`, `{"parameters":[{"name":"T","default":"hunter1"},{"name":"P"}],"app":{"env":["T=hunter2"]}}`, ""},
		{"default", `{"parameters":[{"name":"T","default":"hunter1"},{"name":"P"}]}`, `{"parameters":[{"name":"T","default":"hunter2"},{"name":"P"}]}`, `[{"field":"parameters.T.default","a":"********","b":"********"}]`},
		{"environment", `{"parameters":[{"name":"T"},{"name":"P"}],"app":{"env":["T=hunter1","P=1"]}}`, `{"parameters":[{"name":"T"},{"name":"P"}],"app":{"env":["T=hunter2","P=2"]}}`, `[{"field":"app.env.P","a":"1","b":"2"},{"field":"app.env.T","a":"********","b":"********"}]`},
		{"whole lists", `{"parameters":[{"name":"T"},{"name":"P"}],"app":{"env":["T=hunter1","T=hunter1"]}}`, `{"parameters":[{"name":"T"},{"name":"P"}],"app":{"env":["T=hunter2"]}}`, `[{"field":"app.env","a":["T=********","T=********"],"b":["T=********"]}]`},
	} {
		changes := compareFields(of(test.a), of(test.b))
		got, err := json.Marshal(changes)
		if err != nil {
			t.Fatal(err)
		}
		if test.want == "" && len(changes) > 0 || test.want != "" && string(got) != test.want {
			t.Errorf("%s: got %s", test.name, got)
		}
	}
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDifferences(t *testing.T) {
	base := initramfs.Entry{Name: "x", Perm: 0o755, Size: 1, ModTime: time.Unix(0, 0)}
	for want, change := range map[string]func(e *initramfs.Entry){
		"":                          func(e *initramfs.Entry) { e.ModTime = e.ModTime.UTC() },
		"type":                      func(e *initramfs.Entry) { e.Type, e.Size, e.Target = rootfs.Symlink, 0, "y" },
		"content":                   func(e *initramfs.Entry) { e.Digest[31]++ },
		"mode":                      func(e *initramfs.Entry) { e.Perm = 0o1755 },
		"mode setuid":               func(e *initramfs.Entry) { e.Perm = 0o4755 },
		"mode setuid setgid":        func(e *initramfs.Entry) { e.Perm = 0o6755 },
		"owner":                     func(e *initramfs.Entry) { e.GID = 1 },
		"links":                     func(e *initramfs.Entry) { e.Link = "a" },
		"time":                      func(e *initramfs.Entry) { e.ModTime = time.Unix(1, 0) },
		"content mode owner target": func(e *initramfs.Entry) { e.Size, e.Perm, e.UID, e.Target = 2, 0, 1, "y" },
	} {
		changed := base
		change(&changed)
		if got := strings.Join(differences(base, changed), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// tailored is a bundle of the recipe "static" whose configuration is what is
// asked for, but for the lines of more.
func tailored(t *testing.T, sealed bool, source, more string) *content {
	t.Helper()
	m := &manifest.Manifest{Target: "qemu", Recipe: "static", CommandLine: fmt.Sprintf("sealed=%v", sealed), Initramfs: manifest.Initramfs{Sealed: sealed}, Kernel: manifest.Kernel{Source: source}}
	recipe, err := recipes.Open(m.Recipe)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := builder.Tailor(recipe, builder.FormOf(m))
	if err != nil {
		t.Fatal(err)
	}
	generated, err := kernel.Generated(m.CommandLine, sealed)
	if err != nil {
		t.Fatal(err)
	}
	parts = append(parts, generated)
	request, err := kconfig.Merge(parts...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := kconfig.ParseConfig(".config", append(request.Format(), more...))
	if err != nil {
		t.Fatal(err)
	}
	asked, err := findAsked(m, config)
	if err != nil {
		t.Fatal(err)
	}
	return &content{manifest: m, config: config, asked: asked}
}

func TestCauses(t *testing.T) {
	sealed := func(source, more string) *content { return tailored(t, true, source, more) }
	detached := func(more string) *content { return tailored(t, false, "", more) }
	unknown := sealed("", "CONFIG_ODD=y\n")
	unknown.manifest.Recipe = "nosuch"
	var err error
	if unknown.asked, err = findAsked(unknown.manifest, unknown.config); err != nil || unknown.asked.complete {
		t.Fatalf("%+v, %v", unknown.asked, err)
	}
	unknown.manifest.Recipe = "recipes/static.toml" // a path is nobody's name
	if unknown.asked, err = findAsked(unknown.manifest, unknown.config); err != nil || unknown.asked.complete {
		t.Fatalf("%+v, %v", unknown.asked, err)
	}
	for _, test := range []struct {
		name         string
		a, b         *content
		symbol, want string
	}{
		{"now", detached("CONFIG_BOOT_CONFIG=y\n"), sealed("", ""), "BOOT_CONFIG", "y n: fragment sealed (sealed.config:"},
		{"before", sealed("", ""), detached("CONFIG_BOOT_CONFIG=y\n"), "BOOT_CONFIG", "n y: was fragment sealed (sealed.config:"},
		{"both", sealed("", ""), detached(""), "CMDLINE_BOOL", "y n: fragment detached (detached.config:4), was fragment sealed (sealed.config:7)"},
		{"the build", detached(""), sealed("", ""), "CMDLINE", `n "sealed=true": the build itself`},
		{"others", sealed("", ""), sealed("", "CONFIG_ODD=y\n"), "ODD", "n y: follows from other options"},
		{"another source", sealed("", ""), sealed("x", "CONFIG_ODD=y\n"), "ODD", "n y: "},
		{"another recipe", sealed("", ""), unknown, "ODD", "n y: "},
		// What has another value than we ask for was not asked for by us.
		{"other fragments", sealed("", ""), sealed("", "CONFIG_NR_CPUS=8\n"), "NR_CPUS", "64 8: was fragment base (base.config:"},
		{"other fragments, another symbol", sealed("", ""), sealed("", "CONFIG_NR_CPUS=8\nCONFIG_ODD=y\n"), "ODD", "n y: "},
	} {
		options := compareOptions(test.a, test.b)
		i := slices.IndexFunc(options, func(o OptionChange) bool { return o.Symbol == test.symbol })
		if i < 0 {
			t.Errorf("%s: %s does not differ", test.name, test.symbol)
			continue
		}
		o := options[i]
		got := fmt.Sprintf("%s %s: %s", o.A, o.B, o.Cause)
		if !strings.HasPrefix(got, test.want) || strings.HasSuffix(test.want, ": ") && got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestCompareSigners(t *testing.T) {
	got := compareSigners([]Signer{{"sigstore", "b"}, {"sigstore", "a"}, {"modsig", "z"}}, []Signer{{"sigstore", "a"}, {"authenticode", "c"}, {"sigstore", "a"}})
	want := []SignerChange{{"authenticode", "c", "b"}, {"modsig", "z", "a"}, {"sigstore", "a", "b"}, {"sigstore", "b", "a"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
