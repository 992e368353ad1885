// SPDX-License-Identifier: Apache-2.0

// Package fragments holds the Kconfig fragments that come with tenon.
package fragments

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/kconfig"
)

//go:embed *.config
var files embed.FS

// Names returns the names of all fragments, sorted.
func Names() []string {
	paths, err := fs.Glob(files, "*.config")
	if err != nil {
		return nil // the pattern is constant and good
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(path, ".config")
	}
	slices.Sort(paths)
	return paths
}

// Open returns the fragment of a name as Names has it. It calls itself
// kconfig/fragments/NAME.config.
func Open(name string) (*kconfig.Fragment, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("no fragment %q; there are %s", name, strings.Join(Names(), ", "))
	}
	data, err := files.ReadFile(name + ".config")
	if err != nil {
		return nil, err
	}
	return kconfig.ParseFragment("kconfig/fragments/"+name+".config", data)
}
