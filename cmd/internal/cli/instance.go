// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/control"
)

// InstanceFlags are what differs from instance to instance of a bundle.
type InstanceFlags struct {
	publish, env, envFiles []string
	memory, hostname       string
}

// Flags adds the flags.
func (o *InstanceFlags) Flags(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "forward a port: [ADDRESS:]HOST:GUEST[/udp] (the default address is 127.0.0.1)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set a parameter of the bundle: NAME=VALUE, or NAME for the value that it has here")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "read parameters from a file: a line each, as --env has them; '#' begins a comment")
	f.StringVarP(&o.memory, "memory", "m", "", "memory, for example 512M (default: the least that the bundle claims)")
	f.StringVar(&o.hostname, "hostname", "", "host name (default: the bundle's name)")
}

// Settings reads the flags' values.
func (o *InstanceFlags) Settings() (loader.Settings, error) {
	s := loader.Settings{Hostname: o.hostname, Env: map[string]string{}}
	var err error
	if o.memory != "" {
		if s.Memory, err = ParseSize("--memory", o.memory); err != nil {
			return s, err
		}
	}
	for _, path := range o.envFiles {
		data, err := ReadSmall(path)
		if err != nil {
			return s, fmt.Errorf("--env-file: %w", err)
		}
		number := 0
		for line := range strings.Lines(string(data)) {
			number++
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			if err := setEnv(s.Env, line); err != nil {
				return s, fmt.Errorf("--env-file %s: line %d: %w", path, number, err)
			}
		}
	}
	for _, e := range o.env {
		if err := setEnv(s.Env, e); err != nil {
			return s, fmt.Errorf("--env: %w", err)
		}
	}
	for _, p := range o.publish {
		var f loader.Forward
		if err := f.UnmarshalText([]byte(p)); err != nil {
			return s, fmt.Errorf("--publish %q: %w", p, err)
		}
		s.Forwards = append(s.Forwards, f)
	}
	return s, nil
}

// setEnv takes NAME=VALUE, or NAME of a variable of this process. Values may be secrets,
// so that errors have names alone.
func setEnv(env map[string]string, text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		value, ok = os.LookupEnv(name)
	}
	if name == "" {
		return errors.New("a name is missing: want NAME=VALUE, or NAME")
	}
	if !ok {
		return fmt.Errorf("%s has no value, and is not set here", Printable(name))
	}
	env[name] = value
	return nil
}

// ParseSize reads a size of at least 1 MiB, such as 512M, in bytes.
func ParseSize(flag, text string) (int64, error) {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 1<<20 {
		return 0, fmt.Errorf("%s %q is not a size such as 512M", flag, text)
	}
	return n, nil
}

// ExitStatus maps how an app ended as docker does.
func ExitStatus(exit *control.Exit) error {
	switch {
	case exit.Error != "":
		return Exit(exit.Code, fmt.Errorf("starting the app: %s", exit.Error))
	case exit.Signal != 0:
		return Exit(128+exit.Signal, nil)
	case exit.Code != 0:
		return Exit(exit.Code, nil)
	}
	return nil
}
