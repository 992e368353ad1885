// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tenon-build/tenon/builder/preflight"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// fill makes the tree what the initramfs will have of the image, and checks that the app starts in it.
func (c *content) fill(req *Request, p *plan) error {
	if err := c.checkPatterns("--allow-drop", req.AllowDrop); err != nil {
		return err
	}
	if err := c.drop(p.recipe); err != nil {
		return err
	}
	if err := c.fit(req.AllowDrop, checkXattr); err != nil {
		return err
	}
	return p.checkStart(req, c.tree)
}

// checkStart refuses an app that could not start, and chooses how a program that insists on being
// PID 1 is started. What the request allows is said.
func (p *plan) checkStart(req *Request, tree *rootfs.Tree) error {
	parts, err := Tailor(p.recipe, p.form)
	if err != nil {
		return err
	}
	on := map[string]bool{} // symbols that are asked for
	for _, f := range parts {
		for _, s := range f.Settings {
			on[s.Symbol] = s.Value == "y" || on[s.Symbol] && s.Value != "n"
		}
	}
	check := preflight.Request{Tree: tree, App: p.app, Parameters: p.recipe.Parameters, IA32: on["IA32_EMULATION"], X32: on["X86_X32_ABI"]}
	switch declared := p.recipe.PIDNamespace; {
	case declared != nil:
		p.app.PIDNamespace = *declared
	case check.NeedsPID1():
		p.app.PIDNamespace = true
		req.Log.Info("the app runs as PID 1 of a PID namespace, which its program insists on", "program", argv(p.app)[0])
	}
	found := preflight.Check(check)
	if err := refusal(found, req.Allow); err != nil {
		return err
	}
	for _, problem := range found {
		req.Log.Warn(problem.Name + ": " + problem.Err.Error())
	}
	for _, name := range req.Allow {
		if !slices.ContainsFunc(found, func(p preflight.Problem) bool { return p.Name == name }) {
			return fmt.Errorf("--allow %s: nothing in the image needs it", name)
		}
	}
	return nil
}

// refusal is an error of the problems that are not allowed; nil if there are none.
func refusal(found []preflight.Problem, allowed []string) error {
	var errs []error
	for _, problem := range found {
		if !problem.Warning && !slices.Contains(allowed, problem.Name) {
			errs = append(errs, fmt.Errorf("%w: %s: %w", preflight.ErrCannotStart, problem.Name, problem.Err))
		}
	}
	return errors.Join(errs...)
}
