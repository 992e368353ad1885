// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	p := &Policy{References: []Reference{
		{Repositories: []string{"registry.example/team/*", "docker.io/library/cache"}, Bundles: []string{"web-*", "redis"}},
		{Repositories: []string{"registry.example/team/tools"}, Bundles: []string{"debug-shell"}},
	}}
	for _, test := range []struct{ repository, said, name, want string }{
		{"", "", "anything", ""}, // a file
		{"", "web", "web", ""},
		{"", "web", "debug-shell", `its name is "debug-shell", and "web" is expected`},
		{"other.example/team/payments", "", "payments", ""},
		{"other.example/team/payments", "", "debug-shell", `"payments" is expected in "other.example/team/payments"`},
		{"other.example/team/payments", "debug-shell", "debug-shell", ""},
		{"other.example/team/payments", "debug-shell", "payments", `"debug-shell" is expected`},
		{"registry.example/team/anything", "", "web-1", ""},
		{"registry.example/team/anything", "", "anything", `the policy expects ["web-*" "redis"]`},
		{"registry.example/team/anything", "anything", "anything", "the policy expects"}, // who runs it does not overrule the policy
		{"registry.example/team/anything", "redis", "web-1", `"redis" is expected`},
		{"registry.example/team/tools", "", "debug-shell", ""},
		{"registry.example/team/deeper/tools", "", "tools", ""},
		{"docker.io/library/cache", "", "redis", ""},
	} {
		err := p.CheckName(Asked{test.repository, test.said}, test.name)
		if (err == nil) != (test.want == "") || err != nil && (!errors.Is(err, ErrName) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// Patterns that can never match are refused, wherever a policy has patterns.
func TestPatternsThatNeverMatch(t *testing.T) {
	places := map[string]string{
		"names":        "version = 1\n[[bundle]]\nnames = [%q]\nthreshold = 2\n",
		"bundles":      "version = 1\n[[identity]]\nname = \"x\"\npublic_key = \"k\"\nbundles = [%q]\n",
		"reference":    "version = 1\n[[reference]]\nrepositories = [\"a.b/*\"]\nnames = [%q]\n",
		"repositories": "version = 1\n[[reference]]\nrepositories = [%q]\nnames = [\"*\"]\n",
	}
	never := []string{
		"Payments", "team/payments", "payments:1.4", "payments.*", "-*", "*-", "web_1", "", "[A-Z]*", "w?-", "x y", strings.Repeat("a", 64), `\*`,
	}
	for place, form := range places {
		patterns := never
		if place == "repositories" {
			patterns = []string{
				"payments", "*", "team/payments", "registry.example", "registry.example/", "registry.example/team/payments:1.4", "docker://a.b/c",
				"registry.example/Team", "registry.example/*@sha256:*", "index.docker.io/library/redis", "docker.io/redis", "https://a.b/c", "",
			}
		}
		for _, pattern := range patterns {
			_, err := Parse(fmt.Appendf(nil, form, pattern), func(string) ([]byte, error) { return nil, errors.New("not read") })
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("%q matches no ", pattern)) {
				t.Errorf("%s: %q: %v", place, pattern, err)
			}
		}
	}
}

func TestPatternsThatMatch(t *testing.T) {
	for pattern, name := range map[string]string{
		"*": "web", "web-*": "web-1", "*-web": "a-web", "?": "w", "[a-z]*": "web", "[^a-z]eb": "9eb", `w\eb`: "web", "web-[0-9]": "web-7", "*-*": "a-b", "[-w]eb": "web",
		"w[\\-]b": "w-b", strings.Repeat("a", 63): strings.Repeat("a", 63), strings.Repeat("a", 62) + "*": strings.Repeat("a", 63),
	} {
		if pattern == "[-w]eb" {
			if err := checkPatterns([]string{pattern}, "name", isBundleName); err == nil { // path.Match takes no leading '-'
				t.Errorf("%q is taken", pattern)
			}
			continue
		}
		if ok, err := path.Match(pattern, name); !ok || err != nil {
			t.Fatalf("%q does not match %q: %v", pattern, name, err)
		}
		if err := checkPatterns([]string{pattern}, "name", isBundleName); err != nil {
			t.Error(err)
		}
	}
	for _, pattern := range []string{
		"registry.example/team/*", "*.example/team/payments", "*/team/payments", "localhost/x", "[a-z]egistry.example:5000/x", "[::1]:5000/x", "docker.io/library/*", "registry.example/*/*", "a.b/c__d/e.f-g",
	} {
		if err := checkPatterns([]string{strings.ReplaceAll(pattern, "[::1]", `\[::1\]`)}, "repository", isRepository); err != nil {
			t.Error(err)
		}
	}
}

// What is refused matches nothing, as far as a fuzzer finds.
func FuzzPatterns(f *testing.F) {
	f.Add("web-*", "web-1")
	f.Add("[A-Z]", "a")
	f.Add(`\`, "a")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		matched, err := path.Match(pattern, name)
		refused := checkPatterns([]string{pattern}, "name", isBundleName)
		if err == nil && matched && isBundleName(name) && len(pattern) < 50 && refused != nil {
			t.Errorf("%q matches %q, and is refused: %v", pattern, name, refused)
		}
	})
}
