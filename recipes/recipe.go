// SPDX-License-Identifier: Apache-2.0

// Package recipes holds declarative descriptions of app kernels and reads them.
//
// In: TOML. Out: a *Recipe that has been checked. Refused: unknown keys, values
// of the wrong form, patterns that match nothing by construction.
package recipes

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/signer/stricttoml"
)

//go:embed *.toml
var builtin embed.FS

// ErrUnknown says that there is no built-in recipe of that name.
var ErrUnknown = errors.New("unknown recipe")

// maxSize is the largest recipe file, in bytes.
const maxSize = 1 << 20

// Recipe says how to make an app kernel of an image.
type Recipe struct {
	Name   string // base name of the file without .toml
	Source []byte // the file

	Description string
	Target      manifest.Target   // unless the user says otherwise
	Fragments   []string          // names of fragments beside those that every kernel has
	Config      *kconfig.Fragment // symbols of the recipe itself
	Drop        []string          // doublestar patterns of paths, without a leading slash, to leave out; each must match
	DropIf      []string          // the same, but of what only some images have
	Match       Match
	App         manifest.App // what the image's own config leaves empty

	PIDNamespace *bool // whether the app runs as PID 1 of a PID namespace; nil: the image decides

	Health     *manifest.Health
	Parameters []manifest.Parameter
	Claims     manifest.Claims // memory is what the app needs beside its own root file system
}

// Match says which images the recipe is for.
type Match struct {
	Commands []string `toml:"commands"` // base names of the first word of the entrypoint or of cmd
	Static   bool     `toml:"static"`   // the entrypoint is a statically linked ELF file
}

// file is the form of a recipe on disk.
type file struct {
	Description string          `toml:"description"`
	Target      manifest.Target `toml:"target"`
	Fragments   []string        `toml:"fragments"`
	Config      []string        `toml:"config"`
	Drop        []string        `toml:"drop"`
	DropIf      []string        `toml:"drop_if_present"`
	Match       Match           `toml:"match"`
	App         app             `toml:"app"`
	Claims      claims          `toml:"claims"`
	Health      *health         `toml:"health"`
	Parameters  []parameter     `toml:"parameters"`
}

type app struct {
	Entrypoint []string `toml:"entrypoint"`
	Cmd        []string `toml:"cmd"`
	Env        []string `toml:"env"`
	User       string   `toml:"user"`
	WorkingDir string   `toml:"working_dir"`
	StopSignal string   `toml:"stop_signal"`
	ReadOnly   bool     `toml:"read_only"`

	PIDNamespace *bool `toml:"pid_namespace"`
}

type claims struct {
	CPUs   manifest.Range  `toml:"cpus"`
	Memory sizes           `toml:"memory"`
	Net    *manifest.Range `toml:"net"`
}

type sizes struct {
	Min string `toml:"min"`
	Max string `toml:"max"`
}

type health struct {
	TCP      int      `toml:"tcp"`
	Exec     []string `toml:"exec"`
	Interval string   `toml:"interval"`
	Timeout  string   `toml:"timeout"`
	Retries  int      `toml:"retries"`
}

type parameter struct {
	Name        string  `toml:"name"`
	Type        string  `toml:"type"`
	Default     *string `toml:"default"`
	Description string  `toml:"description"`
	Secret      bool    `toml:"secret"`
}

// Names returns the names of the built-in recipes, sorted.
func Names() []string {
	entries, _ := builtin.ReadDir(".") // an embedded folder that exists by construction
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".toml"))
	}
	return names
}

// Open returns a built-in recipe, or reads a file when ref has a slash or ends
// in .toml.
func Open(ref string) (*Recipe, error) {
	if strings.ContainsRune(ref, '/') || strings.HasSuffix(ref, ".toml") {
		data, err := os.ReadFile(ref)
		if err != nil {
			return nil, fmt.Errorf("reading recipe: %w", err)
		}
		return Parse(ref, data)
	}
	data, err := builtin.ReadFile(ref + ".toml")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w %q: have %s", ErrUnknown, ref, strings.Join(Names(), ", "))
	}
	if err != nil {
		return nil, err
	}
	return Parse("recipes/"+ref+".toml", data)
}

// Parse reads a recipe strictly. Errors are one line that starts with
// FILE:LINE where the line is known.
func Parse(filename string, data []byte) (*Recipe, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s: larger than %d bytes", filename, maxSize)
	}
	var f file
	if err := stricttoml.Decode(data, &f); err != nil {
		return nil, positioned(filename, err)
	}
	r := &Recipe{
		Name: strings.TrimSuffix(path.Base(filename), ".toml"), Source: data,
		Description: f.Description, Target: f.Target, Fragments: f.Fragments, Drop: f.Drop, DropIf: f.DropIf, Match: f.Match,
		App: manifest.App{
			Entrypoint: f.App.Entrypoint, Cmd: f.App.Cmd, Env: f.App.Env,
			User: f.App.User, WorkingDir: f.App.WorkingDir, StopSignal: f.App.StopSignal,
			ReadOnly: f.App.ReadOnly,
		},
		PIDNamespace: f.App.PIDNamespace,
	}
	for _, p := range f.Parameters {
		r.Parameters = append(r.Parameters, manifest.Parameter(p))
	}
	var err error
	if r.Config, err = parseConfig(filename, data, f.Config); err != nil {
		return nil, err
	}
	if err := r.fill(&f); err != nil {
		return nil, fmt.Errorf("%s: %w", filename, err)
	}
	return r, nil
}

func (r *Recipe) fill(f *file) error {
	if r.Description == "" {
		return errors.New("description: missing")
	}
	if r.Target == "" {
		r.Target = manifest.QEMU
	}
	for _, pattern := range slices.Concat(r.Drop, r.DropIf) {
		if err := CheckPattern(pattern); err != nil {
			return fmt.Errorf("drop: %w", err)
		}
	}
	for _, command := range r.Match.Commands {
		if command == "" || strings.ContainsRune(command, '/') {
			return fmt.Errorf("match.commands: %q is not the base name of a program", command)
		}
	}
	seen := map[string]bool{}
	for _, e := range r.App.Env {
		name, _, _ := strings.Cut(e, "=")
		if seen[name] {
			return fmt.Errorf("app.env: %s is set twice", name)
		}
		seen[name] = true
	}
	var err error
	if r.Health, err = f.Health.parse(); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	if r.Claims, err = f.Claims.parse(); err != nil {
		return fmt.Errorf("claims: %w", err)
	}
	return r.checkSpec()
}

// checkSpec checks what goes into the manifest as it is, by the manifest's own
// rules, for an image that has a command.
func (r *Recipe) checkSpec() error {
	if err := r.Target.Check(); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	app := r.App
	app.Entrypoint, app.Health = append([]string{"/app"}, app.Entrypoint...), r.Health
	spec, err := json.Marshal(manifest.Spec{Version: manifest.Version, Name: "app", App: app, Parameters: r.Parameters})
	if err != nil {
		return err
	}
	_, err = manifest.DecodeSpec(spec)
	return err
}

func (h *health) parse() (*manifest.Health, error) {
	if h == nil {
		return nil, nil
	}
	interval, err := duration("interval", h.Interval)
	if err != nil {
		return nil, err
	}
	timeout, err := duration("timeout", h.Timeout)
	if err != nil {
		return nil, err
	}
	return &manifest.Health{TCP: h.TCP, Exec: h.Exec, Interval: interval, Timeout: timeout, Retries: max(1, h.Retries)}, nil
}

func duration(key, s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil && d <= 0 {
		err = errors.New("must be positive")
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %q: %w", key, s, err)
	}
	return d, nil
}

func (c *claims) parse() (manifest.Claims, error) {
	out := manifest.Claims{CPUs: c.CPUs}
	for _, size := range []struct {
		key, value string
		into       *int64
	}{{"memory.min", c.Memory.Min, &out.Memory.Min}, {"memory.max", c.Memory.Max, &out.Memory.Max}} {
		n, err := units.RAMInBytes(size.value)
		if err != nil {
			return out, fmt.Errorf("%s: %q is not a size such as 64MiB", size.key, size.value)
		}
		*size.into = n
	}
	if c.Net != nil {
		out.Devices = []manifest.Device{{Kind: "net", Count: *c.Net}}
	}
	return out, out.Check()
}

// parseConfig reads lines of the form SYMBOL=value.
func parseConfig(filename string, data []byte, settings []string) (*kconfig.Fragment, error) {
	fragment := &kconfig.Fragment{Name: filename}
	lines := configLines(data)
	for i, s := range settings {
		switch {
		case strings.ContainsRune(s, '\n'):
			return nil, fmt.Errorf("%s:%d: %q is more than one line", filename, lines[i], s)
		case strings.HasPrefix(s, "CONFIG_"):
			return nil, fmt.Errorf("%s:%d: %q: symbols have no prefix CONFIG_ here", filename, lines[i], s)
		}
		one, err := kconfig.ParseFragment(filename, []byte(strings.Repeat("\n", lines[i]-1)+"CONFIG_"+s+"\n"))
		if err != nil {
			return nil, err
		}
		fragment.Settings = append(fragment.Settings, one.Settings...)
	}
	return fragment, nil
}

// configLines returns the line of each element of config, in a file that has
// been decoded already.
func configLines(data []byte) []int {
	var lines []int
	var p unstable.Parser
	p.Reset(data)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.KeyValue {
			break // config belongs to no table, so it stands before the first
		}
		key := e.Key()
		if key.Next(); string(key.Node().Data) != "config" {
			continue
		}
		for element := e.Value().Children(); element.Next(); {
			if n := element.Node(); n.Kind != unstable.Comment {
				lines = append(lines, p.Shape(n.Raw).Start.Line)
			}
		}
	}
	return lines
}

// positioned puts the file in front of an error, as FILE:LINE where the line is known.
func positioned(filename string, err error) error {
	var at *stricttoml.Error
	if errors.As(err, &at) {
		return fmt.Errorf("%s:%d: %s", filename, at.Line, at.Text)
	}
	return fmt.Errorf("%s: %w", filename, err)
}

// Choose returns the built-in recipe for an image. What names its program is
// the first word of the entrypoint, or of cmd when the entrypoint is a wrapper;
// static says whether that program is statically linked.
func Choose(entrypoint, cmd []string, static bool) (*Recipe, error) {
	var programs []string
	for _, words := range [][]string{entrypoint, cmd} {
		if len(words) > 0 {
			programs = append(programs, path.Base(words[0]))
		}
	}
	var fallback *Recipe
	for _, name := range Names() {
		r, err := Open(name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(r.Match.Commands, func(c string) bool { return slices.Contains(programs, c) }) {
			return r, nil
		}
		if r.Match.Static && static {
			fallback = r
		}
	}
	if fallback == nil {
		return nil, fmt.Errorf("%w: no built-in recipe fits the program %q: have %s", ErrUnknown, strings.Join(programs, " "), strings.Join(Names(), ", "))
	}
	return fallback, nil
}
