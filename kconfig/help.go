// SPDX-License-Identifier: Apache-2.0

package kconfig

import "strings"

// skipHelp goes over a help text, which has no end of its own: it goes on to
// the first line that is less indented than the text's first line, or, since
// conf looks one byte ahead, to the first line that is not indented at all. A
// first line that is not indented belongs to the text, which is what becomes
// of the statement after an empty help.
func (l *lexer) skipHelp() {
	first := 0
	for l.off < len(l.src) {
		start := l.off
		l.off += len(l.src[start:]) - len(strings.TrimLeft(l.src[start:], " \t"))
		if l.off < len(l.src) && l.src[l.off] != '\n' {
			indent := width(l.src[start:l.off])
			if first > 0 && l.off > start && indent < first {
				return
			}
			if first == 0 {
				first = indent
			}
			l.skipLine()
		}
		if l.off == len(l.src) {
			return
		}
		l.off++
		l.line++
		if l.off < len(l.src) && !strings.ContainsRune(" \t\n", rune(l.src[l.off])) {
			return
		}
	}
}

// width is how far blanks indent, with a tab stop at each eighth column.
func width(blanks string) int {
	n := 0
	for _, c := range blanks {
		if c == '\t' {
			n |= 7
		}
		n++
	}
	return n
}
