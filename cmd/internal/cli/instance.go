// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/control"
)

// InstanceOptions are what differs from instance to instance of a bundle.
type InstanceOptions struct {
	publish, env     []string
	memory, hostname string
}

// Flags adds the flags.
func (o *InstanceOptions) Flags(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "forward a port: [ADDRESS:]HOST:GUEST[/udp] (the default address is 127.0.0.1)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set a parameter of the bundle: NAME=VALUE")
	f.StringVarP(&o.memory, "memory", "m", "", "memory, for example 512M (default: the least that the bundle claims)")
	f.StringVar(&o.hostname, "hostname", "", "host name (default: the bundle's name)")
}

// Config reads the flags' values.
func (o *InstanceOptions) Config() (loader.Config, error) {
	c := loader.Config{Hostname: o.hostname, Env: map[string]string{}}
	var err error
	if o.memory != "" {
		if c.Memory, err = ParseSize("--memory", o.memory); err != nil {
			return c, err
		}
	}
	for _, e := range o.env {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			return c, fmt.Errorf("--env %q is not NAME=VALUE", e)
		}
		c.Env[name] = value
	}
	for _, p := range o.publish {
		var f loader.Forward
		if err := f.UnmarshalText([]byte(p)); err != nil {
			return c, fmt.Errorf("--publish %q: %w", p, err)
		}
		c.Forwards = append(c.Forwards, f)
	}
	return c, nil
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
