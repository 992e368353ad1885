// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/recipes"
)

// OptionChange is a kernel option that differs.
type OptionChange struct {
	Symbol string `json:"symbol"` // without the prefix CONFIG_
	A      string `json:"a"`      // as in a .config; n when it is not set
	B      string `json:"b"`
	Cause  string `json:"cause"` // empty when unknown
}

// followsFromOthers is the cause of what no fragment or recipe asks for, where
// both bundles have the same kernel source and tools.
const followsFromOthers = "follows from other options"

func compareOptions(a, b *content) []OptionChange {
	out := []OptionChange{}
	symbols := append(a.config.Symbols(), b.config.Symbols()...)
	slices.Sort(symbols)
	for _, s := range slices.Compact(symbols) {
		if va, vb := a.config.Value(s), b.config.Value(s); va != vb {
			out = append(out, OptionChange{s, va, vb, cause(s, a, b)})
		}
	}
	return out
}

// cause says which fragment or recipe set the symbol, where they are known to
// have done so.
func cause(symbol string, a, b *content) string {
	before, now := a.asked.cause[symbol], b.asked.cause[symbol]
	switch {
	case before != "" && now != "":
		return now + ", was " + before
	case now != "":
		return now
	case before != "":
		return "was " + before
	}
	same := a.manifest.Kernel.Source == b.manifest.Kernel.Source &&
		a.manifest.Toolchain.Compiler == b.manifest.Toolchain.Compiler && a.manifest.Toolchain.Linker == b.manifest.Toolchain.Linker
	if same && a.asked.complete && b.asked.complete {
		return followsFromOthers
	}
	return ""
}

// asked is what a bundle's fragments and recipe ask for, as this program knows
// them.
type asked struct {
	cause map[string]string // by symbol, of those that have the value that was asked for
	// The recipe is a built-in one, and all that was asked for is there: nothing
	// hints at another recipe or at fragments of another version of this program.
	complete bool
}

func findAsked(m *manifest.Manifest, config *kconfig.Config) (*asked, error) {
	recipe, err := recipes.Open(m.Recipe)
	if strings.ContainsRune(m.Recipe, '/') || strings.HasSuffix(m.Recipe, ".toml") || errors.Is(err, recipes.ErrUnknown) {
		recipe, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := &asked{map[string]string{}, recipe != nil}
	if recipe == nil {
		recipe = &recipes.Recipe{Name: m.Recipe, Config: &kconfig.Fragment{}}
	}
	parts, err := builder.Tailor(recipe, builder.FormOf(m))
	if err != nil {
		return nil, err
	}
	generated, err := kernel.Generated(m.CommandLine, m.Initramfs.Sealed)
	if err != nil {
		return nil, err
	}
	parts = append(parts, generated)
	for _, f := range parts {
		for _, s := range f.Settings {
			if config.Value(s.Symbol) != s.Value {
				out.complete = false
			} else if out.cause[s.Symbol] == "" {
				out.cause[s.Symbol] = sourceOf(s.Pos)
			}
		}
	}
	return out, nil
}

// sourceOf names the fragment or recipe that a setting stands in.
func sourceOf(pos kconfig.Pos) string {
	for _, kind := range []struct{ dir, ext, what string }{{"kconfig/fragments/", ".config", "fragment"}, {"recipes/", ".toml", "recipe"}} {
		if file, ok := strings.CutPrefix(pos.File, kind.dir); ok {
			return fmt.Sprintf("%s %s (%s:%d)", kind.what, strings.TrimSuffix(file, kind.ext), file, pos.Line)
		}
	}
	return "the build itself"
}
