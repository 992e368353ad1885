// SPDX-License-Identifier: Apache-2.0

package kconfig

// Limits on what a stranger may hand us. Each is several times what the
// largest kernel needs.
const (
	maxFragment = 1 << 20  // bytes in a fragment
	maxConfig   = 4 << 20  // bytes in a .config
	maxLine     = 16 << 10 // bytes in a line of either

	maxFile   = 1 << 20  // bytes in a Kconfig file
	maxFiles  = 10_000   // Kconfig files in a tree, one that is included twice counted twice
	maxTree   = 64 << 20 // bytes in them together
	maxTokens = 1000     // in a statement of a Kconfig file
	maxDepth  = 100      // of blocks, of files that include files, of an expression's parentheses
)
