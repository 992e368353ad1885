// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tenon-build/tenon/testdata/e2e"
)

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		samples []float64
		want    spread
	}{
		{[]float64{5}, spread{5, 5, 5}},
		{[]float64{9, 1, 5}, spread{5, 1, 9}},
		{[]float64{4, 1, 9, 2}, spread{3, 1, 9}},
	} {
		before := slices.Clone(test.samples)
		if got := spreadOf(test.samples); got != test.want {
			t.Errorf("%v: %v, not %v", test.samples, got, test.want)
		}
		if !slices.Equal(test.samples, before) { // their order is that of the rounds
			t.Errorf("%v became %v", before, test.samples)
		}
	}
}

func TestRatio(t *testing.T) {
	got := ratioOf([]float64{2, 4, 30}, []float64{4, 2, 10})
	if want := (ratio{1, 0.5, 3}); got != want {
		t.Errorf("%v, not %v", got, want)
	}
}

func TestShort(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.01234: "0.012", 0.5: "0.500", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 123456: "123456"} {
		if got := short(x); got != want {
			t.Errorf("%v: %q, not %q", x, got, want)
		}
	}
}

// takes is a side that takes so many milliseconds, round by round.
func takes(name string, order *[]string, ms ...sample) side {
	return side{name: name, measure: func(e2e.T) sample {
		*order = append(*order, name)
		next := ms[0] * sample(time.Millisecond)
		ms = ms[1:]
		return next
	}}
}

// fixture has a comparison that works, one with peers that fail, and some that fail.
func fixture(order *[]string) []comparison {
	note := func(t e2e.T, what string) { t.Cleanup(func() { *order = append(*order, what) }) }
	return []comparison{
		{"good", "what works", func(j *job) []series {
			note(j, "last")
			note(j, "first")
			return []series{{unit: milliseconds, rounds: 3, subject: takes("ours", order, 10, 30, 20), peers: []side{takes("theirs", order, 40, 40, 50)}}}
		}},
		{"peers", "peers that fail", func(*job) []series {
			round := 0
			return []series{{what: "of peers", unit: milliseconds, rounds: 2, subject: takes("ours", order, 10, 30), peers: []side{
				{"missing", []string{"no-such-program"}, nil},
				{"second round", nil, func(t e2e.T) sample {
					if round++; round == 2 {
						t.Fatalf("in the\nsecond round, %s", strings.Repeat("with many words, ", 100))
					}
					return 1
				}},
				{"panics", nil, func(e2e.T) sample { panic("no memory") }},
				takes("theirs", order, 10, 10),
			}}}
		}},
		{"subject", "a subject that fails", func(*job) []series {
			return []series{{unit: mebibytes, rounds: 1, subject: side{"ours", nil, func(t e2e.T) sample { t.Fatal("broken"); return 0 }}, peers: []side{
				{"theirs", nil, func(e2e.T) sample { return 3 << 20 }},
			}}}
		}},
		{"prepare", "what cannot be built", func(j *job) []series {
			note(j, "cleaned")
			j.Log("the compiler says no")
			j.Fatal("not built")
			return nil
		}},
	}
}

func TestCompare(t *testing.T) {
	var order []string
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), fixture(&order), []string{"good"}, &stdout, &stderr); code != 0 {
		t.Errorf("exit status %d: %s", code, &stderr)
	}
	if got, want := strings.Join(order, " "), "ours theirs ours theirs ours theirs first last"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if want := `                                                   MEDIAN      MIN      MAX     ROUNDS   RATIO  MIN-MAX
good: what works
  ours                                               20.0     10.0     30.0 ms       3
  theirs                                             40.0     40.0     50.0 ms       3   0.500  0.250-0.750
`; stdout.String() != want {
		t.Errorf("got\n%s, not\n%s", &stdout, want)
	}
}

// What fails is a line each, and ends nothing else.
func TestFailures(t *testing.T) {
	var order []string
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), fixture(&order), []string{"--json"}, &stdout, &stderr); code != exitFailed {
		t.Errorf("exit status %d", code)
	}
	var rows []map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &rows); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		text := func(name string) string { s, _ := r[name].(string); return s }
		line := text("comparison") + "|" + text("what") + "|" + text("subject") + "|" + text("peer") + "|" + text("unit") + "|"
		if _, ok := r["ratio"]; ok {
			line += "ratio"
		}
		if (r["median"] == nil) != (text("error") != "") || (r["rounds"] == nil) != (text("error") != "") {
			t.Errorf("%v", r)
		}
		first, _, _ := strings.Cut(text("error"), "\n")
		got = append(got, line+"|"+first)
	}
	if want := []string{
		"good|what works|ours||ms||",
		"good|what works|ours|theirs|ms|ratio|",
		"peers|of peers|ours||ms||",
		`peers|of peers|ours|missing|ms||exec: "no-such-program": executable file not found in $PATH`,
		"peers|of peers|ours|second round|ms||in the",
		"peers|of peers|ours|panics|ms||panic: no memory",
		"peers|of peers|ours|theirs|ms|ratio|",
		"subject|a subject that fails|ours||MiB||broken",
		"subject|a subject that fails|ours|theirs|MiB||",
		"prepare|what cannot be built|||||prepare: not built",
	}; !slices.Equal(got, want) {
		t.Errorf("got\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Contains(order, "cleaned") || !strings.Contains(stderr.String(), "the compiler says no") {
		t.Errorf("%q, %s", order, &stderr)
	}
}

func TestTableWidth(t *testing.T) {
	var order []string
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), fixture(&order), nil, &stdout, &stderr); code != exitFailed {
		t.Errorf("exit status %d", code)
	}
	huge := row{Comparison: "c", What: strings.Repeat("what ", 30), Subject: strings.Repeat("name ", 30), Unit: "µs",
		spread: spread{12345678, 12345678, 12345678}, Rounds: 11, ratio: ratio{0.123, 0.123, 0.123}}
	if err := writeTable(&stdout, []row{huge}); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(stdout.String()) {
		if n := utf8.RuneCountInString(line) - 1; n > tableWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, c := range comparisons {
		if n := utf8.RuneCountInString(c.name + ": " + c.what); n > tableWidth {
			t.Errorf("%s: %d columns", c.name, n)
		}
	}
}

func TestNames(t *testing.T) {
	var order []string
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), fixture(&order), []string{"good,bad"}, &stdout, &stderr); code != exitUsage || stdout.Len() > 0 || len(order) > 0 {
		t.Errorf("exit status %d, %s%q", code, &stdout, order)
	}
	for _, part := range []string{`"bad"`, "good", "what works", "peers", "prepare"} {
		if !strings.Contains(stderr.String(), part) {
			t.Errorf("%s is not in %s", part, &stderr)
		}
	}
	if code := run(t.Context(), fixture(&order), []string{"--no-such-flag"}, &stdout, &stderr); code != exitUsage {
		t.Errorf("exit status %d", code)
	}
	chosen, err := choose(fixture(&order), []string{"prepare,good", "good"})
	if err != nil || len(chosen) != 2 || chosen[0].name != "good" || chosen[1].name != "prepare" {
		t.Errorf("%v, %v", chosen, err)
	}
}

// Ctrl-C ends the commands, and everything is cleaned up.
func TestInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	var dir string
	var stdout, stderr bytes.Buffer
	code := run(ctx, []comparison{{"slow", "what takes long", func(j *job) []series {
		dir = j.TempDir()
		return []series{{unit: milliseconds, rounds: 5, subject: side{"sleep", nil, func(t e2e.T) sample {
			interrupt()
			return took(t, e2e.Command(t, "sleep", "60"), e2e.Command(t, "cat"))
		}}}}
	}}}, nil, &stdout, &stderr)
	if _, err := os.Stat(dir); code != exitFailed || !strings.Contains(stdout.String(), "error: interrupted") || !os.IsNotExist(err) {
		t.Errorf("exit status %d, %v: %s", code, err, &stdout)
	}
}

func TestTook(t *testing.T) {
	j := newJob(t.Context(), newProgress(&bytes.Buffer{}), comparison{name: "took"})
	defer j.progress.end()
	if err := j.try(time.Minute, func() { took(j, e2e.Command(j, "echo", "x"), e2e.Command(j, "grep", "x")) }); err != nil {
		t.Error(err)
	}
	// Nobody waits for one whose reader has ended.
	err := j.try(time.Minute, func() { took(j, e2e.Command(j, "yes"), e2e.Command(j, "sh", "-c", "echo broken >&2; exit 3")) })
	if err == nil || !strings.Contains(err.Error(), "yes: signal: broken pipe") || !strings.Contains(err.Error(), "sh: exit status 3: broken") {
		t.Error(err)
	}
	err = j.try(time.Minute, func() { took(j, e2e.Command(j, "yes"), e2e.Command(j, "no-such-program")) })
	if err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Error(err)
	}
	err = j.try(100*time.Millisecond, func() { took(j, e2e.Command(j, "sleep", "60")) })
	if err == nil || !strings.Contains(err.Error(), "not done after 100ms: sleep: signal: terminated") {
		t.Error(err)
	}
}
