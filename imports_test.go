// SPDX-License-Identifier: Apache-2.0

package tenon_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tenon-build/tenon"

// imports reads what each package of the module imports, without its tests.
// Packages of the module are named by their folder, with a leading "./".
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		// All files count, whatever their build constraints.
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		from := "./" + path.Dir(filepath.ToSlash(file))
		for _, spec := range f.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if rel, ok := strings.CutPrefix(to, module+"/"); ok {
				to = "./" + rel
			}
			if !slices.Contains(out[from], to) {
				out[from] = append(out[from], to)
			}
		}
		return nil
	})
	if err != nil || len(out) < 10 {
		t.Fatalf("%d packages, %v", len(out), err)
	}
	return out
}

// linked returns all that a package imports, by way of the module's packages.
func linked(all map[string][]string, from string) map[string]bool {
	seen := map[string]bool{}
	var visit func(string)
	visit = func(pkg string) {
		for _, to := range all[pkg] {
			if !seen[to] {
				seen[to] = true
				visit(to)
			}
		}
	}
	visit(from)
	return seen
}

// below says whether a package is one of the trees, or in one of them.
func below(pkg string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool { return pkg == tree || strings.HasPrefix(pkg, tree+"/") })
}

// bottom are small packages that any other may import.
var bottom = []string{"./signer/flock", "./signer/ownership", "./signer/regular", "./signer/rename", "./signer/strictjson", "./signer/stricttoml"}

// isLocal says whether a package is one of the module, above the bottom.
func isLocal(pkg string) bool { return strings.HasPrefix(pkg, "./") && !slices.Contains(bottom, pkg) }

// A package of the standard library has no dot in its first element.
func isStandard(pkg string) bool {
	first, _, _ := strings.Cut(pkg, "/")
	return !strings.Contains(first, ".") && pkg != "C"
}

// rules are DESIGN's import rules: of each package in from, allowed says which
// imports are right. Where links is set, that holds for all that it links.
var rules = []struct {
	name    string
	from    func(pkg string) bool
	links   bool
	allowed func(from, to string) bool
}{
	{
		"the bottom imports nothing of the module",
		func(pkg string) bool { return slices.Contains(bottom, pkg) }, true,
		func(_, to string) bool { return !strings.HasPrefix(to, "./") },
	}, {
		"kconfig imports the standard library alone, fragments also kconfig",
		func(pkg string) bool { return below(pkg, "./kconfig") }, true,
		func(from, to string) bool {
			return isStandard(to) || from == "./kconfig/fragments" && to == "./kconfig"
		},
	}, {
		"signer never imports builder or loader",
		func(pkg string) bool { return below(pkg, "./signer") }, true,
		func(_, to string) bool { return !below(to, "./builder", "./loader") },
	}, {
		"loader never imports builder beyond builder/bundle",
		func(pkg string) bool { return below(pkg, "./loader") }, true,
		func(_, to string) bool { return !below(to, "./builder") || below(to, "./builder/bundle") },
	}, {
		"builder never imports loader",
		func(pkg string) bool { return below(pkg, "./builder") }, true,
		func(_, to string) bool { return !below(to, "./loader") },
	}, {
		"builder/bundle imports no sibling",
		func(pkg string) bool { return below(pkg, "./builder/bundle") && pkg != "./builder/bundle/signature" }, true,
		func(_, to string) bool {
			return !isLocal(to) || below(to, "./builder/bundle") && to != "./builder/bundle/signature"
		},
	}, {
		"builder/bundle/signature imports bundle and signer",
		func(pkg string) bool { return pkg == "./builder/bundle/signature" }, true,
		func(_, to string) bool { return !isLocal(to) || below(to, "./builder/bundle", "./signer") },
	}, {
		"loader/alloc imports no sibling",
		func(pkg string) bool { return below(pkg, "./loader/alloc") }, true,
		func(_, to string) bool { return !isLocal(to) || below(to, "./loader/alloc") },
	}, {
		"back ends import loader, alloc, control, session and the manifest",
		func(pkg string) bool {
			return below(pkg, "./loader/qemu", "./loader/kexec", "./loader/multikernel", "./loader/cokernel")
		}, false,
		func(from, to string) bool {
			backend := strings.Join(strings.Split(from, "/")[:3], "/")
			return !isLocal(to) || slices.Contains([]string{"./builder/bundle/manifest", "./loader", "./loader/alloc", "./loader/control", "./loader/session"}, to) || below(to, backend)
		},
	}, {
		"loader/session imports loader and control",
		func(pkg string) bool { return pkg == "./loader/session" }, false,
		func(_, to string) bool { return !isLocal(to) || to == "./loader" || to == "./loader/control" },
	}, {
		"nothing imports cmd, but commands what they have in common",
		func(string) bool { return true }, false,
		func(from, to string) bool {
			return !below(to, "./cmd") || below(from, "./cmd") && below(to, "./cmd/internal")
		},
	}, {
		"only builder/initramfs imports the cpio library",
		func(pkg string) bool { return pkg != "./builder/initramfs" }, false,
		func(_, to string) bool { return !strings.Contains(to, "/cpio") },
	}, {
		"only signer/pkcs7 imports the PKCS#7 library",
		func(pkg string) bool { return pkg != "./signer/pkcs7" }, false,
		func(_, to string) bool { return !strings.HasSuffix(to, "/pkcs7") || to == "./signer/pkcs7" },
	}, {
		"cmd/mortise links nothing of builder beyond bundle",
		func(pkg string) bool { return below(pkg, "./cmd/mortise") }, true,
		func(_, to string) bool { return !below(to, "./builder") || below(to, "./builder/bundle") },
	}, {
		"what is built imports nothing of the tests",
		func(string) bool { return true }, false,
		func(_, to string) bool { return !below(to, "./testdata") },
	}, {
		"the command lines aside, nobody reads flags",
		func(pkg string) bool { return !below(pkg, "./cmd") }, false,
		func(_, to string) bool { return to != "flag" && !strings.HasPrefix(to, "github.com/spf13/") },
	},
}

// broken lists the imports that break a rule.
func broken(all map[string][]string) []string {
	var out []string
	for _, rule := range rules {
		for _, from := range slices.Sorted(maps.Keys(all)) {
			if !rule.from(from) {
				continue
			}
			to := all[from]
			if rule.links {
				to = slices.Sorted(maps.Keys(linked(all, from)))
			}
			for _, to := range to {
				if !rule.allowed(from, to) {
					out = append(out, rule.name+": "+from+" has "+to)
				}
			}
		}
	}
	return out
}

func TestImports(t *testing.T) {
	for _, line := range broken(imports(t)) {
		t.Error(line)
	}
}

// A rule that cannot be broken holds nothing.
func TestImportRulesBreak(t *testing.T) {
	for _, test := range []struct {
		from, to string
		want     string
	}{
		{"./signer/regular", "./signer", "the bottom imports nothing of the module"},
		{"./signer/flock", "./signer/regular", "the bottom imports nothing of the module"},
		{"./kconfig", "./signer/regular", "kconfig imports the standard library alone"},
		{"./kconfig", "golang.org/x/sys/unix", "kconfig imports the standard library alone"},
		{"./kconfig", "./recipes", "kconfig imports the standard library alone"},
		{"./kconfig/fragments", "./recipes", "kconfig imports the standard library alone"},
		{"./signer/modsig", "./loader", "signer never imports builder or loader"},
		{"./signer", "./builder/bundle", "signer never imports builder or loader"},
		{"./loader", "./builder/rootfs", "loader never imports builder"},
		{"./loader/control", "./builder", "loader never imports builder"},
		{"./builder/bundle", "./recipes", "builder/bundle imports no sibling"},
		{"./builder/bundle", "./signer", "builder/bundle imports no sibling"},
		{"./builder/bundle", "./builder/bundle/signature", "builder/bundle imports no sibling"},
		{"./builder/bundle/signature", "./kconfig", "builder/bundle/signature imports bundle and signer"},
		{"./builder", "./loader", "builder never imports loader"},
		{"./builder/kernel", "./loader/cokernel/guest", "builder never imports loader"},
		{"./builder/bundle/tarfs", "./builder/rootfs", "builder/bundle imports no sibling"},
		{"./loader/alloc", "./loader", "loader/alloc imports no sibling"},
		{"./loader/qemu", "./builder/bundle", "back ends import"},
		{"./loader/qemu", "./loader/kexec", "back ends import"},
		{"./loader/cokernel", "./signer", "back ends import"},
		{"./loader/session", "./loader/alloc", "loader/session imports loader and control"},
		{"./recipes", "./cmd/tenon", "nothing imports cmd"},
		{"./builder", "github.com/cavaliergopher/cpio", "only builder/initramfs imports the cpio library"},
		{"./signer/authenticode", "go.mozilla.org/pkcs7", "only signer/pkcs7 imports the PKCS#7 library"},
		{"./cmd/mortise", "./builder/kernel", "cmd/mortise links nothing"},
		{"./builder", "./testdata/e2e", "what is built imports nothing of the tests"},
		{"./builder", "github.com/spf13/cobra", "the command lines aside"},
	} {
		all := imports(t)
		all[test.from] = append(all[test.from], test.to)
		if !slices.ContainsFunc(broken(all), func(s string) bool {
			return strings.HasPrefix(s, test.want) && strings.HasSuffix(s, test.from+" has "+test.to)
		}) {
			t.Errorf("%s may import %s: %v", test.from, test.to, broken(all))
		}
	}
	// By way of another package, too.
	all := imports(t)
	all["./loader"] = append(all["./loader"], "./recipes")
	all["./recipes"] = append(all["./recipes"], "./builder/kernel")
	if !slices.Contains(broken(all), "loader never imports builder beyond builder/bundle: ./loader has ./builder/kernel") {
		t.Errorf("got %v", broken(all))
	}
}
