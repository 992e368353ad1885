// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Handler prints log records for people: "NAME: message (key: value, ...)".
type Handler struct {
	Name string
	W    io.Writer
	mu   sync.Mutex
}

func (h *Handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (h *Handler) WithAttrs([]slog.Attr) slog.Handler               { return h }
func (h *Handler) WithGroup(string) slog.Handler                    { return h }

func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	var attrs []string
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a.Key+": "+Printable(a.Value.String()))
		return true
	})
	line := h.Name + ": "
	if r.Level >= slog.LevelWarn {
		line += "warning: "
	}
	line += r.Message
	if len(attrs) > 0 {
		line += " (" + strings.Join(attrs, ", ") + ")"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := fmt.Fprintln(h.W, line)
	return err
}

// Printable quotes text that is not plain, so that what an image or a guest says
// cannot pass for what we say.
func Printable(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// Escape makes a text of printable characters alone: errors name what strangers
// named.
func Escape(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// PrintJSON prints v with what is not printable escaped: JSON is read on
// terminals too.
func (a *App) PrintJSON(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	var out strings.Builder
	for _, r := range string(data) {
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			out.WriteRune(r)
		default:
			for _, u := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&out, "\\u%04x", u)
			}
		}
	}
	_, err = fmt.Fprintln(a.Stdout, out.String())
	return err
}
