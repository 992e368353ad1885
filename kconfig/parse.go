// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
)

// ParseTree reads the Kconfig file root, mostly "Kconfig", of a source tree and
// all that it includes for the architecture srcarch, such as "x86". Of macros
// only $(SRCARCH) is expanded; what any other yields is taken as unknown, save
// in the name of an included file, where that is an error. So is a statement
// that is not understood. Errors begin with file and line, those of the
// including files first.
func ParseTree(fsys fs.FS, root, srcarch string) (*Tree, error) {
	p := &treeParser{
		fsys: fsys,
		vars: map[string]string{"SRCARCH": srcarch},
		tree: &Tree{symbols: make(map[string]*symbol)},
	}
	if err := p.file(root); err != nil {
		return nil, err
	}
	return p.tree, nil
}

type treeParser struct {
	fsys   fs.FS
	vars   map[string]string
	tree   *Tree
	open   []string // the file being read, and those that include it
	blocks []*entry // the choices, menus and ifs around the current statement
	entry  *entry   // to which "depends on" and the like belong; may be nil
	files  int
	bytes  int
}

func (p *treeParser) file(name string) error {
	if p.files++; p.files > maxFiles || len(p.open) >= maxDepth || slices.Contains(p.open, name) {
		return fmt.Errorf("includes itself, or too many files: %s", name)
	}
	src, err := p.read(name)
	if err != nil {
		return err
	}
	p.open = append(p.open, name)
	depth := len(p.blocks)
	lex := &lexer{src: src, line: 1, vars: p.vars}
	for {
		tokens, line, err := lex.statement()
		pos := Pos{name, line}
		if err == nil && len(tokens) == 0 {
			break
		}
		if err == nil {
			err = p.statement(lex, tokens, pos, depth)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", pos, err)
		}
	}
	if len(p.blocks) > depth {
		b := p.blocks[len(p.blocks)-1]
		return fmt.Errorf("%s: %s without end%s", b.pos, b.kind, b.kind)
	}
	p.open = p.open[:len(p.open)-1]
	p.entry = nil
	return nil
}

func (p *treeParser) read(name string) (string, error) {
	f, err := p.fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	if p.bytes += len(data); len(data) > maxFile || p.bytes > maxTree {
		return "", fmt.Errorf("%s: too large", name)
	}
	return string(data), nil
}

func (p *treeParser) statement(lex *lexer, tokens []token, pos Pos, depth int) error {
	if lex.assignment() || tokens[0].kind == word && tokens[0].unknown {
		return nil // to a macro, or a macro called for its effect
	}
	if tokens[0].kind != word {
		return fmt.Errorf("unexpected %s", tokens[0])
	}
	keyword, args := tokens[0].text, tokens[1:]
	switch keyword {
	case "help", "---help---":
		lex.skipHelp()
		return nil
	case "mainmenu":
		return nil
	case "source":
		return p.source(args)
	case "config", "menuconfig":
		return p.config(args, pos)
	case "comment", "menu", "choice", "if":
		return p.block(keyword, args, pos)
	case "endmenu", "endchoice", "endif":
		return p.end(keyword[len("end"):], depth)
	}
	if p.entry == nil {
		return fmt.Errorf("unknown statement %q", keyword)
	}
	return p.option(keyword, args, pos)
}

func (p *treeParser) source(args []token) error {
	if len(args) != 1 || args[0].unknown {
		return fmt.Errorf("cannot tell which file to include: %v", args)
	}
	p.entry = nil
	return p.file(path.Clean(args[0].text))
}

// enter makes an entry that inherits from what is around it.
func (p *treeParser) enter(kind string, pos Pos) *entry {
	e := &entry{kind: kind, pos: pos}
	if len(p.blocks) > 0 {
		b := p.blocks[len(p.blocks)-1]
		e.depends, e.visible, e.choice = b.depends, b.visible, b.choice
		if b.kind == "choice" {
			e.choice = b
		}
	}
	p.entry = e
	return e
}

func (p *treeParser) config(args []token, pos Pos) error {
	if len(args) != 1 || args[0].kind != word || args[0].unknown {
		return fmt.Errorf("config needs a symbol")
	}
	e := p.enter("config", pos)
	e.sym = p.tree.refer(args[0].text)
	e.sym.entries = append(e.sym.entries, e)
	if e.choice != nil {
		e.choice.members = append(e.choice.members, e.sym)
	}
	return nil
}

func (p *treeParser) block(kind string, args []token, pos Pos) error {
	e := p.enter(kind, pos)
	if kind == "comment" {
		return nil
	}
	if len(p.blocks) >= maxDepth {
		return fmt.Errorf("more than %d blocks in each other", maxDepth)
	}
	p.blocks = append(p.blocks, e)
	if kind == "if" {
		p.entry = nil
		return addExpr(&e.depends, args)
	}
	return nil
}

// end closes a block, which must have been opened in the same file.
func (p *treeParser) end(kind string, depth int) error {
	last := len(p.blocks) - 1
	if last < depth || p.blocks[last].kind != kind {
		return fmt.Errorf("end%s without %s", kind, kind)
	}
	p.blocks = p.blocks[:last]
	p.entry = nil
	return nil
}

// addExpr makes what tokens say a further condition.
func addExpr(to **expr, tokens []token) error {
	e, err := parseExpr(tokens)
	if err != nil {
		return err
	}
	*to = and(*to, e)
	return nil
}
