// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/docker/go-units"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/qemu"
	"github.com/tenon-build/tenon/signer/stricttoml"
)

const defaultConfig = "/etc/mortise/mortise.toml"

// configFile is what the host's configuration looks like. All of it may be missing.
type configFile struct {
	Version int `toml:"version"` // 1
	Reserve struct {
		CPUs    string   `toml:"cpus"`    // "0-1"; default: the core of the first CPU
		Memory  string   `toml:"memory"`  // "2GiB"
		Devices []string `toml:"devices"` // PCI addresses
	} `toml:"reserve"`
	Trust struct {
		Policy string `toml:"policy"` // file; where the command line says nothing of trust
		State  string `toml:"state"`  // directory
	} `toml:"trust"`
	QEMU struct {
		Accel string `toml:"accel"` // kvm or tcg; default: kvm if a test guest starts under it
	} `toml:"qemu"`
}

// hostConfig is what it means.
type hostConfig struct {
	reserve       alloc.Reserve
	policy, state string
	accel         string
}

// readConfig reads a file, or the default one if there is one.
func readConfig(path string) (hostConfig, error) {
	name := path
	if name == "" {
		name = defaultConfig
	}
	data, err := cli.ReadSmall(name)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return hostConfig{}, nil
	}
	if err != nil {
		return hostConfig{}, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := parseConfig(data)
	if err != nil {
		return hostConfig{}, fmt.Errorf("configuration %s: %w", name, err)
	}
	return c, nil
}

func parseConfig(data []byte) (c hostConfig, err error) {
	var f configFile
	if err := stricttoml.Decode(data, &f); err != nil {
		return c, err
	}
	if f.Version != 1 {
		return c, fmt.Errorf("version %d: this program reads version 1", f.Version)
	}
	if c.reserve.CPUs, err = alloc.ParseCPUs(f.Reserve.CPUs); err != nil {
		return c, fmt.Errorf("reserve.cpus: %w", err)
	}
	if f.Reserve.Memory != "" {
		if c.reserve.Memory, err = units.RAMInBytes(f.Reserve.Memory); err != nil || c.reserve.Memory < 0 {
			return c, fmt.Errorf("reserve.memory: %q is not a size such as 2GiB", f.Reserve.Memory)
		}
	}
	if a := f.QEMU.Accel; a != "" && a != qemu.KVM && a != qemu.TCG {
		return c, fmt.Errorf("qemu.accel: %q is neither kvm nor tcg", a)
	}
	c.reserve.Devices, c.policy, c.state, c.accel = f.Reserve.Devices, f.Trust.Policy, f.Trust.State, f.QEMU.Accel
	return c, nil
}
