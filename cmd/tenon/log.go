// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// handler prints log records for people: "tenon: message (key: value, ...)".
type handler struct {
	mu sync.Mutex
	w  io.Writer
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (h *handler) WithAttrs([]slog.Attr) slog.Handler               { return h }
func (h *handler) WithGroup(string) slog.Handler                    { return h }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var attrs []string
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a.Key+": "+printable(a.Value.String()))
		return true
	})
	line := "tenon: "
	if r.Level >= slog.LevelWarn {
		line += "warning: "
	}
	line += r.Message
	if len(attrs) > 0 {
		line += " (" + strings.Join(attrs, ", ") + ")"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := fmt.Fprintln(h.w, line)
	return err
}

// printable quotes text that is not plain, so that what an image or a guest says
// cannot pass for what we say.
func printable(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}
