// SPDX-License-Identifier: Apache-2.0

// Package kconfig reads and checks the Kconfig language of the Linux kernel:
// fragments (what is asked for), a resolved .config (what came out) and the
// Kconfig files of a source tree (why).
//
// In go bytes, out come values and errors; nothing is executed. The order of
// work is ParseFragment, Merge, Request.Format; then the tree's own
// "make olddefconfig", which somebody else runs; then ParseConfig, ParseTree
// and Check, which fails if a symbol did not get the value that was asked for.
//
// The package refuses what conf, the kernel's own parser, passes over in
// silence or with a warning: in a fragment, each line that is not understood;
// between fragments, two values for one symbol; in the result, each request
// that was dropped or changed. It does not resolve a configuration itself.
//
// The languages are those of Documentation/kbuild/kconfig-language.rst and of
// scripts/kconfig/confdata.c. Symbols are without the prefix CONFIG_.
package kconfig
