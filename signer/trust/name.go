// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"path"
)

// ErrName says that a bundle is another one than was asked for.
var ErrName = errors.New("not the bundle that was asked for")

// Reference says which bundles are expected in some repositories.
type Reference struct {
	Repositories []string // patterns (path.Match) of HOST/NAME
	Bundles      []string // patterns, as in Identity
}

// Asked is how a bundle was asked for.
type Asked struct {
	Repository string // HOST/NAME, without tag and digest; empty: it lies in a file
	Name       string // that it was said to have; empty: nobody said
}

// CheckName says whether a bundle of a name is what was asked for. What the policy says of
// its repository holds always. Beside that it has the name that was said; where nobody said
// one and the policy says nothing, it has the last part of the repository's name. The error
// wraps ErrName.
func (p *Policy) CheckName(asked Asked, name string) error {
	var expected []string
	for _, r := range p.References {
		if asked.Repository != "" && matches(r.Repositories, asked.Repository) {
			expected = append(expected, r.Bundles...)
		}
	}
	switch {
	case len(expected) > 0 && !matches(expected, name):
		return fmt.Errorf("%w: its name is %q, and the policy expects %q in %q", ErrName, name, expected, asked.Repository)
	case asked.Name != "" && asked.Name != name:
		return fmt.Errorf("%w: its name is %q, and %q is expected", ErrName, name, asked.Name)
	case len(expected) > 0 || asked.Name != "" || asked.Repository == "":
		return nil
	}
	if last := path.Base(asked.Repository); last != name {
		return fmt.Errorf("%w: its name is %q, and %q is expected in %q", ErrName, name, last, asked.Repository)
	}
	return nil
}
