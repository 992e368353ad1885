// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// bundleName is what a bundle's name can be: a DNS label, as package manifest wants it.
var bundleName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// repository is what a bundle's repository can be: HOST/NAME, the host with a dot or a port, as
// docker tells it from a name on its own.
var repository = regexp.MustCompile(`^(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):[0-9]+)(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+$`)

func isBundleName(s string) bool { return bundleName.MatchString(s) }

// CheckBundleName refuses what cannot be a bundle's name.
func CheckBundleName(s string) error {
	if !isBundleName(s) {
		return fmt.Errorf("%q is not a DNS label (a-z, 0-9, '-', at most 63)", s)
	}
	return nil
}

func isRepository(s string) bool {
	switch host, rest, _ := strings.Cut(s, "/"); {
	case host == "index.docker.io": // it is docker.io here
		return false
	case host == "docker.io" && !strings.Contains(rest, "/"): // that is docker.io/library/NAME
		return false
	}
	return repository.MatchString(s)
}

// checkPatterns refuses patterns that are malformed, and those that nothing can match: a rule
// that never applies limits nothing.
func checkPatterns(patterns []string, what string, is func(string) bool) error {
	if len(patterns) == 0 {
		return errors.New("empty")
	}
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("%q: %w", pattern, err)
		}
		if !is(sample(pattern, "")) && !is(sample(pattern, "a")) && !is(sample(pattern, "a.b")) {
			return fmt.Errorf("%q matches no %s", pattern, what)
		}
	}
	return nil
}

// sample returns a text that matches a good pattern, with star for each "*".
func sample(pattern, star string) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789-._:ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	var out strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			out.WriteString(star)
		case '?':
			out.WriteByte(alphabet[0])
		case '\\':
			i++
			out.WriteByte(pattern[i])
		case '[':
			end := i + 1
			for pattern[end] != ']' {
				if pattern[end] == '\\' {
					end++
				}
				end++
			}
			for _, c := range alphabet {
				if ok, _ := path.Match(pattern[i:end+1], string(c)); ok {
					out.WriteRune(c)
					break
				}
			}
			i = end
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}
