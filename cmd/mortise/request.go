// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/instance"
)

// requestOptions say what an instance is to have, and who has to have signed its bundle.
type requestOptions struct {
	trust       cli.TrustFlags
	instance    cli.InstanceFlags
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
	r = instance.Request{
		Backend: manifest.Target(o.backend), SplitCores: o.splitCores, Devices: o.devices, HangTimeout: o.hangTimeout,
	}
	if r.Settings, err = o.instance.Settings(); err != nil {
		return r, err
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
	if err = o.trust.Check(); err != nil {
		return r, err
	}
	o.trust.Default(a.Policy, a.State)
	r.Trust = o.trust.Trust
	err = r.Trust.Absolute() // the instance may be started from elsewhere
	return r, err
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
