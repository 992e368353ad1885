// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"

	"github.com/docker/go-units"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/qemu"
	"github.com/tenon-build/tenon/signer/ownership"
	"github.com/tenon-build/tenon/signer/stricttoml"
)

const defaultConfig = "/etc/mortise/mortise.toml"

// configFile is what the host's configuration looks like. All of it may be missing.
type configFile struct {
	Version    int    `toml:"version"`    // 1
	Registries string `toml:"registries"` // file: the configuration of registries
	Reserve    struct {
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

// pciAddress is how the kernel writes one.
var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)

// hostConfig is what it means.
type hostConfig struct {
	reserve       alloc.Reserve
	policy, state string
	registries    string
	accel         string
}

// readConfig reads a file, or the default one if there is one.
func readConfig(path string) (hostConfig, error) {
	name := path
	if name == "" {
		name = defaultConfig
	}
	var data []byte
	err := ownership.Check(name)
	if err == nil {
		data, err = cli.ReadSmall(name)
	}
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return hostConfig{}, nil
	}
	if err != nil {
		return hostConfig{}, fmt.Errorf("reading the configuration: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return hostConfig{}, err
	}
	c, err := parseConfig(data, dir)
	if err != nil {
		return hostConfig{}, fmt.Errorf("configuration %s: %w", name, err)
	}
	return c, nil
}

// parseConfig makes the paths in it absolute: they are relative to dir, where the file lies.
func parseConfig(data []byte, dir string) (c hostConfig, err error) {
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
	for _, device := range f.Reserve.Devices {
		if !pciAddress.MatchString(device) {
			return c, fmt.Errorf("reserve.devices: %q is no PCI address such as 0000:00:1f.2", device)
		}
	}
	if a := f.QEMU.Accel; a != "" && a != qemu.KVM && a != qemu.TCG {
		return c, fmt.Errorf("qemu.accel: %q is neither kvm nor tcg", a)
	}
	c.reserve.Devices, c.accel = f.Reserve.Devices, f.QEMU.Accel
	c.policy, c.state, c.registries = f.Trust.Policy, f.Trust.State, f.Registries
	for _, path := range []*string{&c.policy, &c.state, &c.registries} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	return c, nil
}
