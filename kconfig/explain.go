// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"slices"
	"strings"
)

// explainer finds reasons for what conf did. Each of its methods returns "" if
// its reason does not apply.
type explainer struct {
	env
	request *Request
}

func (x explainer) explain(s *symbol, want, got string) string {
	reasons := []func(*symbol, string, string) string{
		x.wrongType, x.selected, x.noPrompt, x.outOfRange, x.unmet, x.noModules, x.choice,
	}
	for _, reason := range reasons {
		if text := reason(s, want, got); text != "" {
			return text
		}
	}
	return "for a reason that this check cannot tell"
}

func (x explainer) wrongType(s *symbol, want, _ string) string {
	var ok bool
	switch s.typ {
	case "bool":
		ok = want == "y" || want == "n"
	case "tristate":
		ok = want == "y" || want == "n" || want == "m"
	case "string":
		ok = want[0] == '"'
	case "int":
		ok = numberSyntax.MatchString(want) && !isHex(want)
	case "hex":
		ok = numberSyntax.MatchString(want) && want[0] != '-'
	default:
		ok = true
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("has the type %s, of which %s is no value", s.typ, want)
}

// selected applies if the value is higher than what was asked for.
func (x explainer) selected(s *symbol, want, got string) string {
	if !s.tristate() || levelOf(got) <= levelOf(want) {
		return ""
	}
	var by []string
	for _, sel := range s.selected {
		active := min(x.level(token{text: sel.by.sym.name}).high, x.eval(sel.by.depends).high, x.eval(sel.cond).high)
		if active > levelOf(want) {
			by = append(by, fmt.Sprintf("%s (=%s) at %s", sel.by.sym.name, x.config.Value(sel.by.sym.name), sel.pos))
		}
	}
	if len(by) == 0 {
		return ""
	}
	return "selected by " + list(by)
}

func (x explainer) noPrompt(s *symbol, want, got string) string {
	if slices.ContainsFunc(s.entries, func(e *entry) bool { return e.prompt }) {
		return ""
	}
	text := "has no prompt: it cannot be set, its defaults alone decide"
	if len(s.selected) > 0 && levelOf(got) < levelOf(want) {
		var by []string
		for _, sel := range s.selected {
			by = append(by, sel.by.sym.name)
		}
		text = fmt.Sprintf("has no prompt: it cannot be set, only selected (by %s)", list(by))
	}
	if unmet := x.lacking(s, s.entries, want); unmet != "" {
		text += "; " + unmet
	}
	return text
}

func (x explainer) outOfRange(s *symbol, want, got string) string {
	n, ok := x.rangeNumber(s, want)
	if !ok || got == "n" {
		return ""
	}
	for _, e := range s.entries {
		for _, r := range e.ranges {
			if x.eval(and(e.depends, r.cond)).high == no {
				continue
			}
			// Only the first range that applies counts.
			low, ok1 := x.rangeNumber(s, x.text(r.low))
			high, ok2 := x.rangeNumber(s, x.text(r.high))
			if ok1 && ok2 && (n < low || n > high) {
				return fmt.Sprintf("is outside of the range %s to %s", x.text(r.low), x.text(r.high))
			}
			return ""
		}
	}
	return ""
}

// rangeNumber reads a number as the symbol's type has it.
func (x explainer) rangeNumber(s *symbol, text string) (int64, bool) {
	if s.tristate() || s.typ == "string" {
		return 0, false
	}
	if s.typ == "hex" && !isHex(text) {
		text = "0x" + text
	}
	return number(text)
}

// unmet applies if no prompt is visible, so that what was asked for had no
// effect.
func (x explainer) unmet(s *symbol, want, got string) string {
	var prompts []*entry
	for _, e := range s.entries {
		if e.prompt {
			prompts = append(prompts, e)
		}
	}
	text := x.lacking(s, prompts, want)
	if text != "" && got != "n" && levelOf(got) >= levelOf(want) {
		text += ", so its default applies"
	}
	return text
}

// lacking returns what keeps a symbol from being visible. Of several
// definitions the one that lacks least is the likeliest to have been meant.
func (x explainer) lacking(s *symbol, entries []*entry, want string) string {
	need := mod // is enough for all but one kind of request
	if s.typ == "tristate" && want == "y" && x.config.Value("MODULES") != "n" {
		need = yes
	}
	fewest, text := -1, ""
	for _, e := range entries {
		depends, visible := x.blame(e.depends, need), x.blame(e.visible, need)
		n := len(depends) + len(visible)
		if fewest >= 0 && fewest <= n {
			continue
		}
		fewest = n
		var parts []string
		if len(depends) > 0 {
			parts = append(parts, "depends on "+list(depends))
		}
		if len(visible) > 0 {
			parts = append(parts, "its prompt depends on "+list(visible))
		}
		text = strings.Join(parts, "; ")
	}
	return text
}

func (x explainer) noModules(s *symbol, want, _ string) string {
	if s.typ == "tristate" && want == "m" && x.config.Value("MODULES") == "n" {
		return "MODULES (=n): nothing can be a module"
	}
	return ""
}

func (x explainer) choice(s *symbol, want, _ string) string {
	for _, e := range s.entries {
		if e.choice == nil {
			continue
		}
		var others []string
		for _, m := range e.choice.members {
			if m == s {
				continue
			}
			others = append(others, m.name)
			if want != "n" && x.config.Value(m.name) == "y" {
				return fmt.Sprintf("the choice at %s is %s%s", e.choice.pos, m.name, x.asker(m.name))
			}
		}
		if want == "n" && len(others) > 0 {
			return fmt.Sprintf("the choice at %s must have a member, and no other is set (%s)", e.choice.pos, list(others))
		}
	}
	return ""
}

// asker says who asked for a symbol, if somebody did.
func (x explainer) asker(symbol string) string {
	for _, s := range x.request.Settings {
		if s.Symbol == symbol && s.Value != "n" {
			return fmt.Sprintf(" (asked for at %s)", s.Pos)
		}
	}
	return ""
}
