// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// ErrMissingTools says that programs or headers for compiling a kernel are not
// on this machine.
var ErrMissingTools = errors.New("missing build tools")

// Toolchain names the programs that decide what a kernel's bytes are, each as
// it prints its own version.
type Toolchain struct {
	Compiler   string
	Linker     string
	Compressor string
}

var tools = []string{"make", "gcc", "ld", "flex", "bison", "bc", "zstd", "perl", "xz"}

// FindToolchain asks the tools for their versions. The error lists all that is
// missing.
func FindToolchain(ctx context.Context) (*Toolchain, error) {
	var missing []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if len(missing) == 0 {
		cmd := exec.CommandContext(ctx, "gcc", "-E", "-")
		cmd.Stdin = strings.NewReader("#include <gelf.h>\n")
		if err := cmd.Run(); ctx.Err() != nil {
			return nil, ctx.Err()
		} else if err != nil {
			missing = append(missing, "gelf.h (libelf)")
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrMissingTools, strings.Join(missing, ", "))
	}
	var t Toolchain
	for tool, line := range map[string]*string{"gcc": &t.Compiler, "ld": &t.Linker, "zstd": &t.Compressor} {
		out, err := exec.CommandContext(ctx, tool, "--version").Output()
		if err != nil {
			return nil, fmt.Errorf("%s --version: %w", tool, err)
		}
		*line, _, _ = strings.Cut(string(out), "\n")
	}
	return &t, nil
}
