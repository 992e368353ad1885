// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/preflight"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/recipes"
)

// plan is what image, recipe and request say of a bundle, before anything of it is made.
type plan struct {
	name   string
	recipe *recipes.Recipe
	form   Form
	app    manifest.App
}

// newPlan takes over what the image says, and completes it with the recipe: the
// request's, or one that fits the image.
func newPlan(req *Request, name string, config *v1.Config, tree *rootfs.Tree) (*plan, error) {
	p := &plan{name: req.Name, recipe: req.Recipe, app: imageApp(config)}
	if p.name == "" {
		p.name = nameOf(name)
	}
	if p.recipe == nil {
		check := preflight.Request{Tree: tree, App: p.app}
		var err error
		if p.recipe, err = recipes.Choose(p.app.Entrypoint, p.app.Cmd, check.IsStatic(argv(p.app))); err != nil {
			if never := refusal(preflight.Check(check), req.Allow); never != nil {
				err = fmt.Errorf("image %q: %w", req.Image, never) // whatever the recipe is
			}
			return nil, err
		}
		req.Log.Info("recipe chosen from the image", "recipe", p.recipe.Name, "description", p.recipe.Description)
	}
	fillApp(&p.app, p.recipe.App)
	if p.recipe.Health != nil {
		p.app.Health = p.recipe.Health
	}
	if len(argv(p.app)) == 0 {
		return nil, fmt.Errorf("image %q: it has neither an entrypoint nor a command, and neither does recipe %q", req.Image, p.recipe.Name)
	}
	p.form = Form{Target: p.recipe.Target, Sealed: !req.Detached, Network: p.recipe.Claims.Device("net") != nil}
	if req.Target != "" {
		p.form.Target = req.Target
	}
	return p, nil
}

// initFiles reads PID 1, and writes down what it is to read.
func (p *plan) initFiles(req *Request) (f initFiles, err error) {
	if f.program, err = os.ReadFile(req.Appinit); err != nil {
		return f, fmt.Errorf("opening PID 1: %w", err)
	}
	spec := (&manifest.Manifest{Name: p.name, App: p.app, Parameters: p.recipe.Parameters, Claims: p.recipe.Claims}).Spec()
	if f.spec, err = json.Marshal(spec); err != nil {
		return f, err
	}
	if _, err := manifest.DecodeSpec(f.spec); err != nil {
		return f, fmt.Errorf("image %q: %w", req.Image, err)
	}
	return f, nil
}

// nameRE takes what a bundle's name may not hold.
var nameRE = regexp.MustCompile(`[^a-z0-9-]+`)

// nameOf makes a bundle's name of an image's Name: its last path element without
// tag, digest and file name extension.
func nameOf(name string) string {
	base := name[strings.LastIndexByte(name, '/')+1:]
	base, _, _ = strings.Cut(base, "@")
	base, _, _ = strings.Cut(base, ":")
	base = strings.TrimSuffix(base, filepath.Ext(base))
	base = strings.Trim(nameRE.ReplaceAllString(strings.ToLower(base), "-"), "-")
	if base == "" {
		return "app"
	}
	return strings.TrimRight(base[:min(len(base), 63)], "-")
}

// imageApp is what the image says of its app.
func imageApp(c *v1.Config) manifest.App {
	return manifest.App{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: lastOfEach(c.Env), User: c.User, WorkingDir: c.WorkingDir, StopSignal: c.StopSignal,
		Ports: slices.Sorted(maps.Keys(c.ExposedPorts)), Health: imageHealth(c.Healthcheck), Volumes: imageVolumes(c.Volumes),
	}
}

// lastOfEach keeps the last setting of a variable that is set twice, as docker and runc do: getenv(3)
// would return the first.
func lastOfEach(env []string) []string {
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		out = slices.DeleteFunc(out, func(before string) bool { return strings.HasPrefix(before, name+"=") })
		out = append(out, e)
	}
	return out
}

// imageVolumes sorts parents before what is below them, the order in which they are
// mounted. As in docker, a path may be unclean.
func imageVolumes(declared map[string]struct{}) []string {
	clean := map[string]bool{}
	for v := range declared {
		if v != "" {
			clean[path.Clean(v)] = true
		}
	}
	return slices.Sorted(maps.Keys(clean))
}

// imageHealth takes over the image's own check, with docker's defaults.
func imageHealth(h *v1.HealthConfig) *manifest.Health {
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	var command []string
	switch h.Test[0] {
	case "CMD":
		command = h.Test[1:]
	case "CMD-SHELL":
		command = []string{"/bin/sh", "-c", h.Test[1]}
	default:
		return nil
	}
	or := func(d, fallback time.Duration) time.Duration {
		if d > 0 {
			return d
		}
		return fallback
	}
	retries := h.Retries
	if retries == 0 {
		retries = 3
	}
	return &manifest.Health{Exec: command, Interval: or(h.Interval, 30*time.Second), Timeout: or(h.Timeout, 30*time.Second), Retries: retries}
}

// fillApp sets what the image leaves empty, or has no field for.
func fillApp(app *manifest.App, from manifest.App) {
	if len(argv(*app)) == 0 {
		app.Entrypoint, app.Cmd = from.Entrypoint, from.Cmd
	}
	for _, e := range from.Env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(app.Env, func(have string) bool { return strings.HasPrefix(have, name+"=") }) {
			app.Env = append(app.Env, e)
		}
	}
	app.ReadOnly = from.ReadOnly
	for _, field := range []struct{ to, from *string }{
		{&app.User, &from.User}, {&app.WorkingDir, &from.WorkingDir}, {&app.StopSignal, &from.StopSignal},
	} {
		if *field.to == "" {
			*field.to = *field.from
		}
	}
}

func argv(a manifest.App) []string {
	return append(a.Entrypoint[:len(a.Entrypoint):len(a.Entrypoint)], a.Cmd...)
}
