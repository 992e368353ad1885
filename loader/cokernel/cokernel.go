// SPDX-License-Identifier: Apache-2.0

package cokernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
)

// ErrNoModule says that the module is not loaded.
var ErrNoModule = errors.New("the kernel module mortise is not loaded")

// ErrHost says that the module does not run instances on this host.
var ErrHost = errors.New("the kernel module mortise is loaded, but refuses this host")

// ErrUntrusted says that the host's kernel does not accept the bundle.
var ErrUntrusted = fmt.Errorf("%w by the host's kernel", loader.ErrRefused)

// Backend runs kernels beside the host's. It implements loader.Survivor.
type Backend struct{}

var _ loader.Survivor = (*Backend)(nil)

// Name returns manifest.Cokernel.
func (b *Backend) Name() manifest.Target { return manifest.Cokernel }

// Can says what the back end can do.
func (b *Backend) Can() loader.Capabilities {
	return loader.Capabilities{
		Several: true, Resize: true, Input: true, Offline: true,
		Isolation: "instances are kernels beside the host's, on CPUs that are offline to it and in memory that it does not use; nothing keeps a kernel from others' memory and CPUs but that it was signed by somebody whom you trust; caches, memory bandwidth and faults of the machine are shared",
	}
}

// Check returns an error that wraps ErrNoModule or ErrHost, or nil.
func (b *Backend) Check() error {
	d, err := openChecked()
	if err != nil {
		return err
	}
	return d.Close()
}

// openChecked opens the device of a module that can make instances.
func openChecked() (*device, error) {
	d, err := openDevice()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoModule
	}
	if err != nil {
		return nil, err
	}
	info, err := d.info()
	if err == nil && info.refusals != 0 {
		err = fmt.Errorf("%w: %s", ErrHost, refusals(info.refusals))
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// refusals are the bits MORTISE_NO_* in words.
func refusals(bits uint32) string {
	var reasons []string
	for i, text := range []string{
		"it uses x2APIC, which is not supported yet (nox2apic turns it off)",
		"it remaps interrupts, which is not supported yet (intremap=off turns it off)",
		"its memory is encrypted, or it is a confidential guest",
		"what its kernel keeps below 1 MiB was not understood",
		"its time stamp counter is not stable, or has no known frequency",
	} {
		if bits&(1<<i) != 0 {
			reasons = append(reasons, text)
		}
	}
	if reasons == nil {
		return fmt.Sprintf("the module says %#x", bits)
	}
	return strings.Join(reasons, "; ")
}

// Load takes memory and CPUs from the host's kernel, and has the module read and verify
// the bundle's.
func (b *Backend) Load(ctx context.Context, v *loader.Verified, c loader.Config) (loader.Instance, error) {
	if err := c.Resolve(b.Name(), v.Manifest()); err != nil {
		return nil, err
	}
	if err := checkPlan(&c); err != nil {
		return nil, err
	}
	d, err := openChecked()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	o, err := d.create(c.ID)
	switch {
	case errors.Is(err, unix.ENOSPC):
		return nil, errors.New("the memory below 1 MiB, of which each instance needs 64 KiB, is used up")
	case errors.Is(err, unix.ESHUTDOWN):
		return nil, errors.New("the host is about to go down, or to sleep")
	case err != nil:
		return nil, fmt.Errorf("making the module's instance %s: %w", c.ID, err)
	}
	i := newInstance(o, c)
	if err := i.fill(ctx, v); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

// checkPlan refuses a plan that the configuration does not fit.
func checkPlan(c *loader.Config) error {
	switch {
	case c.Plan == nil:
		return errors.New("an instance without a plan cannot run beside the host")
	case len(c.Plan.CPUs) != c.CPUs:
		return fmt.Errorf("the plan has CPUs %s for an instance with %d", c.Plan.CPUs, c.CPUs)
	case c.CPUs > maxCPUs:
		return fmt.Errorf("an instance beside the host has at most %d CPUs, not %d", maxCPUs, c.CPUs)
	case c.Plan.PageSize != 0:
		return errors.New("the plan has huge pages of the host, which a kernel of its own has no use for")
	case len(c.Plan.Devices) > 0:
		return errors.New("the plan has devices, which cannot be given yet")
	}
	return nil
}

// fill gives the instance what the plan says, and loads the bundle.
func (i *instance) fill(ctx context.Context, v *loader.Verified) error {
	for _, m := range i.config.Plan.Memory {
		bytes := (m.Bytes + pageblock - 1) / pageblock * pageblock
		err := i.object.reserve(ctx, m.Node, bytes)
		if errors.Is(err, unix.ENOMEM) {
			return fmt.Errorf("node %d has no %d MiB that the host's kernel can spare in large pieces: %w", m.Node, bytes>>20, err)
		}
		if err != nil {
			return fmt.Errorf("reserving %d MiB of node %d: %w", bytes>>20, m.Node, err)
		}
	}
	if err := i.takeAll(i.config.Plan.CPUs, false); err != nil {
		return err
	}
	if err := i.takeAll(i.config.Plan.Siblings, true); err != nil {
		return err
	}
	if err := i.load(v); err != nil {
		return err
	}
	var err error
	if i.console, err = i.object.channel(streamConsole); err != nil {
		return fmt.Errorf("opening the console: %w", err)
	}
	if i.channel, err = i.object.channel(streamControl); err != nil {
		return fmt.Errorf("opening the control channel: %w", err)
	}
	return nil
}

func (i *instance) takeAll(cpus alloc.CPUSet, idle bool) error {
	for _, cpu := range cpus {
		if err := i.object.take(cpu, idle); err != nil {
			return fmt.Errorf("taking CPU %d from the host: %w", cpu, err)
		}
	}
	return nil
}

// load loads the kernel. The host's may trust one of several signatures.
func (i *instance) load(v *loader.Verified) error {
	image := image{kernel: v.Kernel(), initrd: v.Initramfs(), possibleCPUs: min(max(i.config.MaxCPUs, i.config.CPUs), maxCPUs)}
	if !v.Sealed() {
		image.detached, image.commandLine = true, v.Manifest().CommandLine
	}
	statements := v.Statements()
	if len(statements) == 0 {
		statements = [][]byte{nil}
	}
	var errs []error
	for _, image.statement = range statements {
		err := i.object.load(image)
		if err == nil {
			return nil
		}
		errs = append(errs, explain(err, &image))
	}
	return errors.Join(errs...)
}

// explain says what an error of load means.
func explain(err error, image *image) error {
	why := ""
	switch {
	case errors.Is(err, unix.EPERM) && image.statement == nil:
		why = "its statement is not signed, and the module takes no such bundle here"
	case errors.Is(err, unix.EPERM):
		why = "it is detached, and the kernel is locked down"
	case errors.Is(err, unix.ENOKEY):
		why = "no key in the kernel's keyrings made the signature of its statement"
	case errors.Is(err, unix.EKEYREJECTED):
		why = "the signature is not of this kernel, target and seal"
	case errors.Is(err, unix.EBADMSG), errors.Is(err, unix.EMSGSIZE):
		why = "the signature of its statement is damaged"
	case errors.Is(err, unix.ENOPKG):
		why = "the kernel does not know the algorithm of its signature"
	case errors.Is(err, unix.EKEYREVOKED), errors.Is(err, unix.EKEYEXPIRED):
		why = "the key of its signature does not count any more"
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("no piece of the instance's memory is large enough for its kernel and its initramfs: %w", err)
	default:
		return fmt.Errorf("loading the kernel: %w", err)
	}
	return fmt.Errorf("%w: %s: %w", ErrUntrusted, why, err)
}

// Attach returns an instance that another process started. It may have ended since.
func (b *Backend) Attach(_ context.Context, c loader.Config) (loader.Instance, error) {
	o, err := openObject(c.ID)
	if err != nil {
		return nil, err
	}
	i := newInstance(o, c)
	if err := i.attach(); err != nil {
		return nil, errors.Join(err, i.closeFiles())
	}
	return i, nil
}

// List lists what the module has.
func (b *Backend) List() ([]string, error) {
	d, err := openDevice()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.list()
}

// Alive says whether an instance runs.
func (b *Backend) Alive(id string) (bool, error) {
	o, err := openObject(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer o.Close()
	s, err := o.status()
	return err == nil && s.state == stateRunning, err
}

// openObject returns what the module has of an instance; the error wraps fs.ErrNotExist
// when that is nothing.
func openObject(id string) (*object, error) {
	d, err := openDevice()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	o, err := d.open(id)
	if err != nil {
		return nil, fmt.Errorf("the module's instance %s: %w", id, err)
	}
	return o, nil
}

// Discard ends an instance, and gives back what it has.
func (b *Backend) Discard(_ context.Context, id string) error {
	o, err := openObject(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(o.end(), o.Close())
}

// end ends a guest that runs, and gives back what it has, unless somebody else does.
func (o *object) end() error {
	err := o.stop()
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) { // it never ran; it is gone
		return fmt.Errorf("stopping the instance: %w", err)
	}
	if err := o.destroy(); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("giving CPUs and memory back: %w", err)
	}
	return nil
}
