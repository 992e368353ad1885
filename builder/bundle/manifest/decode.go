// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/tenon-build/tenon/signer/strictjson"
)

// Decode reads a manifest strictly and checks it.
func Decode(data []byte) (*Manifest, error) {
	var m Manifest
	if err := decode(data, &m); err != nil {
		return nil, err
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	return &m, nil
}

// DecodeSpec reads a spec strictly and checks it.
func DecodeSpec(data []byte) (*Spec, error) {
	var s Spec
	if err := decode(data, &s); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return &s, nil
}

func decode(data []byte, into any) error {
	return strictjson.DecodeVersion(data, MaxSize, Version, into)
}

// Patterns are matched by hand: package regexp would cost appinit a tenth of
// its size, and time in every boot.
const (
	lower   = "abcdefghijklmnopqrstuvwxyz"
	letters = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
)

// only says whether s consists of characters of set.
func only(s, set string) bool {
	return strings.Trim(s, set) == ""
}

func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && only(s, lower+digits+"-") && s[0] != '-' && s[len(s)-1] != '-'
}

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && only(hex, digits+"abcdef")
}

func isEnvName(s string) bool {
	return s != "" && only(s, letters+digits+"_") && !only(s[:1], digits)
}

// Check says what is wrong with the manifest, naming the field.
func (m *Manifest) Check() error {
	spec := m.Spec()
	if err := spec.check(); err != nil {
		return err
	}
	if err := m.Target.Check(); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if err := CheckBundleVersion(m.BundleVersion); err != nil {
		return fmt.Errorf("bundleVersion: %w", err)
	}
	if m.Platform == "" {
		return errors.New("platform: empty")
	}
	for _, d := range []struct{ field, value string }{
		{"kernel.source", m.Kernel.Source},
		{"kernel.config", m.Kernel.Config},
		{"initramfs.digest", m.Initramfs.Digest},
		{"image.digest", m.Image.Digest},
	} {
		if !isDigest(d.value) {
			return fmt.Errorf("%s: %q is not a sha256 digest", d.field, d.value)
		}
	}
	if strings.ContainsAny(m.CommandLine, "\n\x00") || len(m.CommandLine) > 2047 {
		return errors.New("commandLine: more than one line, or longer than 2047 bytes")
	}
	return m.Claims.Check()
}

// CheckBundleVersion says whether a bundle can have that version.
func CheckBundleVersion(s string) error {
	if v := "v" + s; v != "v" && (semver.Canonical(v) != v || len(s) > 64) {
		return fmt.Errorf("%q is not a semantic version such as 1.4.0, of at most 64 bytes", s)
	}
	return nil
}

// Check says which claim is out of range.
func (c *Claims) Check() error {
	ranges := []struct {
		field string
		r     Range
	}{{"claims.cpus", c.CPUs}, {"claims.memory", c.Memory}}
	for i, d := range c.Devices {
		if d.Kind != "net" {
			return fmt.Errorf("claims.devices: unknown kind %q", d.Kind)
		}
		if c.Device(d.Kind) != &c.Devices[i] {
			return fmt.Errorf("claims.devices: %q is claimed twice", d.Kind)
		}
		ranges = append(ranges, struct {
			field string
			r     Range
		}{"claims.devices." + d.Kind, d.Count})
	}
	for _, r := range ranges {
		if r.r.Min < 1 || r.r.Max < r.r.Min {
			return fmt.Errorf("%s: needs 1 <= min <= max, has min %d, max %d", r.field, r.r.Min, r.r.Max)
		}
	}
	return nil
}

func (s *Spec) check() error {
	if s.Version != Version {
		return fmt.Errorf("%w %d", strictjson.ErrVersion, s.Version)
	}
	if !isLabel(s.Name) {
		return fmt.Errorf("name: %q is not a DNS label (a-z, 0-9, '-', at most 63)", s.Name)
	}
	if len(s.App.Entrypoint)+len(s.App.Cmd) == 0 {
		return errors.New("app: neither entrypoint nor cmd")
	}
	for _, e := range s.App.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.ContainsRune(e, 0) {
			return fmt.Errorf("app.env: %q is not NAME=VALUE", e)
		}
	}
	if _, err := s.App.Signal(); err != nil {
		return fmt.Errorf("app.stopSignal: %w", err)
	}
	if err := checkVolumes(s.App.Volumes); err != nil {
		return fmt.Errorf("app.volumes: %w", err)
	}
	if h := s.App.Health; h != nil {
		if (h.TCP != 0) == (len(h.Exec) != 0) || h.TCP < 0 || h.TCP > 65535 {
			return errors.New("app.health: needs exactly one of tcp (1-65535) and exec")
		}
		if h.Interval <= 0 || h.Timeout <= 0 || h.Retries < 1 {
			return errors.New("app.health: interval, timeout and retries must be positive")
		}
	}
	seen := map[string]bool{}
	for _, p := range s.Parameters {
		if err := p.check(); err != nil {
			return fmt.Errorf("parameters: %w", err)
		}
		if seen[p.Name] {
			return fmt.Errorf("parameters: %s is declared twice", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

func (p *Parameter) check() error {
	if !isEnvName(p.Name) {
		return fmt.Errorf("%q is not the name of an environment variable", p.Name)
	}
	if strings.HasPrefix(p.Name, "LD_") {
		return fmt.Errorf("%s: the dynamic linker's variables cannot be parameters", p.Name)
	}
	switch p.Type {
	case "string", "int", "bool":
	default:
		return fmt.Errorf("%s: type %q is none of string, int, bool", p.Name, p.Type)
	}
	if p.Default != nil {
		return p.CheckValue(*p.Default)
	}
	return nil
}

// CheckValue says whether value is of the parameter's type: an int is what
// strconv.ParseInt takes in base 10 with 64 bits, a bool is true or false, a
// string has no NUL and at most 4096 bytes.
func (p *Parameter) CheckValue(value string) error {
	var ok bool
	switch p.Type {
	case "int":
		_, err := strconv.ParseInt(value, 10, 64)
		ok = err == nil
	case "bool":
		ok = value == "true" || value == "false"
	default:
		ok = len(value) <= 4096 && !strings.ContainsRune(value, 0)
	}
	switch {
	case !ok && p.Secret:
		return fmt.Errorf("%s: the value is not of type %s", p.Name, p.Type)
	case !ok && p.Type == "string": // which may be a secret
		return fmt.Errorf("%s: the value has a NUL, or more than 4096 bytes", p.Name)
	case !ok:
		return fmt.Errorf("%s: %.40q is not of type %s", p.Name, value, p.Type)
	}
	return nil
}

// Environment returns the app's environment: the image's own, then every
// parameter, with the value given in set or else its default; one without
// either stays as the image has it. It refuses names that are not declared.
func (s *Spec) Environment(set map[string]string) ([]string, error) {
	env := slices.Clone(s.App.Env)
	for name := range set {
		if !slices.ContainsFunc(s.Parameters, func(p Parameter) bool { return p.Name == name }) {
			return nil, fmt.Errorf("%s is not a parameter of %q", name, s.Name)
		}
	}
	for i := range s.Parameters {
		p := &s.Parameters[i]
		value, ok := set[p.Name]
		if !ok && p.Default == nil {
			continue
		}
		if !ok {
			value = *p.Default
		}
		if err := p.CheckValue(value); err != nil {
			return nil, err
		}
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, p.Name+"=") })
		env = append(env, p.Name+"="+value)
	}
	return env, nil
}
