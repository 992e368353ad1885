// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/diff"
	"github.com/tenon-build/tenon/cmd/internal/cli"
)

func newDiffCmd(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "diff A B", Short: "Compare two bundles by what they mean", Args: cobra.ExactArgs(2),
		Long: "Compare two bundles: files, kernel options and what set them, command line, claims,\n" +
			"parameters, app, signers, sizes. The exit status is 0 when they are the same, 1 when\n" +
			"they differ, and 2 when they cannot be compared.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.CheckFormat(format); err != nil {
				return err
			}
			stop := a.working()
			r, err := compare(cmd.Context(), args[0], args[1])
			stop()
			if err != nil {
				return err
			}
			if format == "json" {
				err = a.PrintJSON(r)
			} else {
				err = printDiff(a.Stdout, r)
			}
			if err == nil && !r.Same {
				err = cli.Exit(exitDiffer, nil)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func compare(ctx context.Context, refA, refB string) (r *diff.Report, err error) {
	var sides [2]diff.Side
	for i, ref := range []string{refA, refB} {
		b, err := bundle.Open(ctx, ref)
		if err != nil {
			return nil, err
		}
		defer b.Close()
		sides[i] = diff.Side{Name: ref, Bundle: b}
		if sides[i].Signers, err = signersOf(ctx, b); err != nil {
			return nil, fmt.Errorf("bundle %q: %w", ref, err)
		}
	}
	return diff.Compare(ctx, sides[0], sides[1])
}

// signersOf lists who signed a bundle, whom nobody trusts here.
func signersOf(ctx context.Context, b *bundle.Bundle) ([]diff.Signer, error) {
	signatures, err := checkedSignatures(ctx, b)
	var out []diff.Signer
	for _, s := range signatures {
		name := s.Signer
		if s.Error != "" {
			name = "unproven: " + s.Error
		}
		out = append(out, diff.Signer{Kind: s.Kind, Name: name})
	}
	return out, err
}

// printDiff prints a report for people, what it means first.
func printDiff(out io.Writer, r *diff.Report) error {
	if r.Same {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	p := &diffPrinter{w}
	p.row("---", r.A.Name, r.A.Digest)
	p.row("+++", r.B.Name, r.B.Digest)
	fields := map[string][]diff.FieldChange{}
	for _, f := range r.Fields {
		section := sectionOf(f.Field)
		fields[section] = append(fields[section], f)
	}
	p.fields("seal", fields["seal"])
	p.files(r.Files)
	p.options(r.Options)
	for _, title := range []string{"command line", "claims", "parameters", "app", "made from"} {
		p.fields(title, fields[title])
	}
	p.fidelity(r.Fidelity)
	p.signers(r.Signers)
	p.sizes(r.Sizes)
	p.fields("digests", fields["digests"])
	return w.Flush()
}

type diffPrinter struct {
	w *tabwriter.Writer
}

// title begins a section. Columns do not go across it.
func (p *diffPrinter) title(format string, args ...any) {
	_ = p.w.Flush()
	fmt.Fprintf(p.w, "\n"+format+"\n", args...)
}

func (p *diffPrinter) row(sign string, columns ...string) {
	for i, c := range columns {
		columns[i] = cli.Printable(c)
	}
	fmt.Fprintf(p.w, "%s %s\n", sign, strings.TrimRight(strings.Join(columns, "\t"), "\t"))
}

func (p *diffPrinter) files(files []diff.FileChange) {
	if len(files) == 0 {
		return
	}
	count := map[string]int{}
	timeOnly := 0
	for _, f := range files {
		count[f.Change]++
		if slices.Equal(f.What, []string{"time"}) {
			timeOnly++
		}
	}
	p.title("files: %d added, %d removed, %d changed", count["added"], count["removed"], count["changed"]-timeOnly)
	for _, f := range files {
		switch {
		case f.Change == "added":
			p.row("+", f.Path, newFile(f.B, f.What))
		case f.Change == "removed":
			p.row("-", f.Path, newFile(f.A, f.What))
		case !slices.Equal(f.What, []string{"time"}):
			p.row("~", f.Path, changedFile(&f))
		}
	}
	if timeOnly > 0 {
		p.row("~", fmt.Sprintf("%d more differ in their time of modification alone", timeOnly))
	}
}

// newFile describes a file that only one side has.
func newFile(f *diff.File, privileges []string) string {
	words := []string{f.Type, f.Mode, fmt.Sprintf("%d:%d", f.UID, f.GID)}
	switch {
	case f.Target != "":
		words = append(words, "-> "+f.Target)
	case f.Device != "":
		words = append(words, f.Device)
	case f.Type == "regular":
		words = append(words, size(f.Size))
	}
	if f.Link != "" {
		words = append(words, "hard link with "+f.Link)
	}
	if f.Capabilities != "" {
		words = append(words, f.Capabilities)
	}
	return strings.Join(append(words, upper(privileges)...), " ")
}

// upper makes what gives rights to others stand out.
func upper(words []string) []string {
	out := slices.Clone(words)
	for i := range out {
		out[i] = strings.ToUpper(out[i])
	}
	return out
}

// changedFile describes what differs of a file, rights first.
func changedFile(f *diff.FileChange) string {
	var rights, rest []string
	for _, what := range f.What {
		switch what {
		case "setuid", "setgid":
			verb := "NO LONGER "
			if hasBit(f.B.Mode, what) {
				verb = "BECOMES "
			}
			rights = append(rights, verb+strings.ToUpper(what))
		case "capabilities":
			rights = append(rights, "CAPABILITIES "+orNone(f.A.Capabilities)+" to "+orNone(f.B.Capabilities))
		case "type":
			rest = append(rest, "type "+f.A.Type+" to "+newFile(f.B, nil))
		case "content":
			rest = append(rest, contentChange(f.A.Size, f.B.Size))
		case "mode":
			rest = append(rest, "mode "+f.A.Mode+" to "+f.B.Mode)
		case "owner":
			rest = append(rest, fmt.Sprintf("owner %d:%d to %d:%d", f.A.UID, f.A.GID, f.B.UID, f.B.GID))
		case "device":
			rest = append(rest, "device "+f.A.Device+" to "+f.B.Device)
		case "target":
			rest = append(rest, "target "+f.A.Target+" to "+f.B.Target)
		case "links":
			rest = append(rest, "hard link with "+orNone(f.A.Link)+" to "+orNone(f.B.Link))
		case "time":
		default:
			rest = append(rest, what)
		}
	}
	return strings.Join(append(rights, rest...), ", ")
}

func hasBit(mode, what string) bool {
	bit := byte(4)
	if what == "setgid" {
		bit = 2
	}
	return mode != "" && (mode[0]-'0')&bit != 0
}

func contentChange(a, b int64) string {
	if a == b {
		return "content, still " + size(a)
	}
	return fmt.Sprintf("content %s to %s", size(a), size(b))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (p *diffPrinter) options(options []diff.OptionChange) {
	if len(options) > 0 {
		p.title("kernel options: %d changed", len(options))
	}
	for _, o := range options {
		p.row("~", o.Symbol, o.A+" to "+o.B, o.Cause)
	}
}

// sections are the parts of the manifest, as people look for them. Sizes have a
// list of their own.
var sections = []struct{ prefix, title string }{
	{"initramfs.sealed", "seal"},
	{"initramfs.size", ""}, {"initramfs.unpacked", ""},
	{"initramfs.digest", "digests"}, {"kernel.config", "digests"}, {"layers", "digests"},
	{"commandLine", "command line"}, {"claims", "claims"}, {"parameters", "parameters"}, {"app", "app"},
}

func sectionOf(field string) string {
	for _, s := range sections {
		if field == s.prefix || strings.HasPrefix(field, s.prefix+".") {
			return s.title
		}
	}
	return "made from"
}

func (p *diffPrinter) fields(title string, fields []diff.FieldChange) {
	if len(fields) > 0 {
		p.title("%s", title)
	}
	for _, f := range fields {
		a, b := fieldValue(f.Field, f.A), fieldValue(f.Field, f.B)
		switch {
		case f.A == nil:
			p.row("+", f.Field, b)
		case f.B == nil:
			p.row("-", f.Field, a)
		case f.Field == "commandLine" || len(a)+len(b) > 60:
			p.row("-", f.Field, a)
			p.row("+", f.Field, b)
		default:
			p.row("~", f.Field, a+" to "+b)
		}
	}
}

// fieldValue is a value for people: sizes and durations with their units.
func fieldValue(field string, v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		n, err := v.Int64()
		switch {
		case err != nil:
		case strings.HasPrefix(field, "claims.memory."):
			return size(n)
		case field == "app.health.interval" || field == "app.health.timeout":
			return time.Duration(n).String()
		}
	case bool:
		if field == "initramfs.sealed" && v {
			return "sealed"
		} else if field == "initramfs.sealed" {
			return "detached (the kernel takes any initramfs, the weaker form)"
		}
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

func (p *diffPrinter) fidelity(changes []diff.FidelityChange) {
	if len(changes) > 0 {
		p.title("what the initramfs has other than the image")
	}
	for _, c := range changes {
		p.row(side(c.In), c.Kind, strings.Trim(c.Path+" "+c.What, " "))
	}
}

func side(in string) string {
	if in == "a" {
		return "-"
	}
	return "+"
}

func (p *diffPrinter) signers(changes []diff.SignerChange) {
	if len(changes) > 0 {
		p.title("signers")
	}
	for _, c := range changes {
		p.row(side(c.In), c.Kind, c.Signer)
	}
}

func (p *diffPrinter) sizes(changes []diff.SizeChange) {
	if len(changes) > 0 {
		p.title("sizes")
	}
	for _, c := range changes {
		more := "+" + size(c.B-c.A)
		if c.B < c.A {
			more = "-" + size(c.A-c.B)
		}
		p.row("~", c.What, size(c.A)+" to "+size(c.B), more)
	}
}
