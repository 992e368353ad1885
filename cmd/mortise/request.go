// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
)

// requestOptions say what an instance is to have, and who has to have signed its bundle.
type requestOptions struct {
	trust       cli.TrustOptions
	instance    cli.InstanceOptions
	name        string
	backend     string // a manifest.Target
	cpus        string
	splitCores  bool
	hugePages   string
	node        int
	devices     []string
	hangTimeout time.Duration
}

func (o *requestOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.trust.Flags(f)
	f.BoolVar(&o.trust.AllowUnsigned, "allow-unsigned", false, "take a bundle that nobody signed: anyone can have made it")
	o.trust.Exclusive(cmd)
	o.instance.Flags(f)
	f.StringVar(&o.name, "name", "", "name of the instance (default: the bundle's name)")
	f.StringVar(&o.backend, "backend", "", "back end that it has to run on: refuse a bundle that is built for another one")
	f.StringVar(&o.cpus, "cpus", "", "how many CPUs, or which ones: 4, or 8-11 (default: the least that the bundle claims)")
	f.BoolVar(&o.splitCores, "split-cores", false, "let siblings of the instance's CPUs run other kernels")
	f.StringVar(&o.hugePages, "huge-pages", "", "make the memory of huge pages of this size, for example 2M")
	f.IntVar(&o.node, "node", -1, "NUMA node that all CPUs and memory are on (default: any)")
	f.StringArrayVar(&o.devices, "device", nil, "give a PCI function, with its IOMMU group: 0000:03:00.0")
	f.DurationVar(&o.hangTimeout, "hang-timeout", 2*time.Minute, "end the instance when it gives no sign of life for so long; 0: never")
}

// request reads the flags' values. The host's configuration stands in where they say
// nothing of trust.
func (o *requestOptions) request(a *app) (r instance.Request, err error) {
	c, err := o.instance.Config()
	if err != nil {
		return r, err
	}
	r = instance.Request{
		Backend: manifest.Target(o.backend), SplitCores: o.splitCores, Memory: c.Memory, Devices: o.devices, Hostname: c.Hostname, Env: c.Env, Forwards: c.Forwards,
		HangTimeout: o.hangTimeout,
	}
	if r.CPUs, r.CPUList, err = parseCPUs(o.cpus); err != nil {
		return r, err
	}
	if o.hugePages != "" {
		if r.PageSize, err = cli.ParseSize("--huge-pages", o.hugePages); err != nil {
			return r, err
		}
	}
	if o.node >= 0 {
		r.Node = &o.node
	}
	if o.hangTimeout < 0 {
		return r, fmt.Errorf("--hang-timeout %v: must not be negative", o.hangTimeout)
	}
	r.Trust, err = o.trustOf(a)
	return r, err
}

// trustOf makes paths absolute: the instance may be started from elsewhere.
func (o *requestOptions) trustOf(a *app) (instance.Trust, error) {
	o.trust.Default(a.Policy, a.State)
	t := instance.Trust{Key: o.trust.Key, Cert: o.trust.Cert, Policy: o.trust.Policy, State: o.trust.State, AllowUnsigned: o.trust.AllowUnsigned}
	for _, path := range []*string{&t.Key, &t.Cert, &t.Policy, &t.State} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return t, err
		}
	}
	return t, nil
}

// parseCPUs tells a number of CPUs from a list. A list of one is 8-8.
func parseCPUs(text string) (int, alloc.CPUSet, error) {
	if strings.ContainsAny(text, "-,") {
		set, err := alloc.ParseCPUs(text)
		if err != nil || len(set) == 0 {
			return 0, nil, fmt.Errorf("--cpus %q is neither a number nor a list such as 8-11", text)
		}
		return 0, set, nil
	}
	if text == "" {
		return 0, nil, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, nil, fmt.Errorf("--cpus %q is neither a number nor a list such as 8-11", text)
	}
	return n, nil, nil
}

// verify opens a bundle for an instance. Who asks only remembers nothing.
func (a *app) verify(ctx context.Context, ref string, t instance.Trust, asks bool) (*loader.Verified, error) {
	o := cli.TrustOptions{Key: t.Key, Cert: t.Cert, Policy: t.Policy, State: t.State, AllowUnsigned: t.AllowUnsigned}
	policy, err := o.Load(asks)
	if err != nil {
		return nil, err
	}
	if policy.AllowUnsigned {
		a.Log.Warn("running without a signature: nothing proves who made this bundle", "bundle", ref)
	}
	v, err := loader.Verify(ctx, ref, policy, func(c loader.Check) {
		if c.Result == loader.CheckWarning {
			a.Log.Warn(c.Object, "why", c.Detail)
		}
	})
	if err != nil {
		return nil, err
	}
	if !v.Manifest().Initramfs.Sealed {
		a.Log.Warn("detached: no signature over the kernel covers the initramfs and the command line", "bundle", ref)
	}
	return v, nil
}
