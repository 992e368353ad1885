// SPDX-License-Identifier: Apache-2.0

// Package preflight says what would keep an app from starting, before a kernel is compiled for it.
//
// In: the root file system as it will be, and what is to run in it. Out: problems, each with the
// name by which a user may allow it. It follows symbolic links and PATH as PID 1 and the kernel do,
// and says nothing about what lies below /proc, /sys and /dev, which nobody knows before the start.
package preflight

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/passwd"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// The names of problems.
const (
	Entrypoint  = "entrypoint"  // the program is missing, a directory or not executable
	Interpreter = "interpreter" // the one that a script's first line names is not there
	Format      = "format"      // the program is neither a script nor an ELF program
	CPU         = "cpu"         // the program is for another CPU
	IA32        = "ia32"        // the program is a 32-bit one, which the kernel does not run
	Loader      = "loader"      // the dynamic loader that the program names is not there
	User        = "user"        // the user or group is not in the image
	WorkingDir  = "workdir"     // the working directory cannot be one
	Volume      = "volume"      // a volume cannot be a directory
	Health      = "health"      // the program of the health check cannot run
)

// Names are all of them.
var Names = []string{Entrypoint, Interpreter, Format, CPU, IA32, Loader, User, WorkingDir, Volume, Health}

// ErrCannotStart says that an app would not start; test with errors.Is.
var ErrCannotStart = errors.New("its app cannot start")

// Problem is a reason for which an app does not start.
type Problem struct {
	Name    string
	Err     error
	Warning bool // the app starts, but does less than it should
}

// Request says what is to be started.
type Request struct {
	Tree       *rootfs.Tree
	App        manifest.App
	Parameters []manifest.Parameter // which a deployer may set
	IA32, X32  bool                 // the kernel runs 32-bit programs of that kind
}

// Check returns what keeps the app from starting.
func Check(r Request) []Problem {
	found := r.run(Entrypoint, argv(r.App), false)
	if err := r.user(); err != nil {
		found = append(found, Problem{Name: User, Err: err})
	}
	if err := r.directory(path.Join("/", r.App.WorkingDir)); err != nil {
		found = append(found, Problem{Name: WorkingDir, Err: err})
	}
	for _, v := range r.App.Volumes {
		if err := r.directory(v); err != nil {
			found = append(found, Problem{Name: Volume, Err: err})
		}
	}
	if r.App.Health != nil && len(r.App.Health.Exec) > 0 {
		found = append(found, r.run(Health, r.App.Health.Exec, true)...)
	}
	return found
}

func argv(a manifest.App) []string { return slices.Concat(a.Entrypoint, a.Cmd) }

// run checks a command. Whatever is wrong with that of the health check has the one name of it.
func (r Request) run(name string, argv []string, warning bool) []Problem {
	if len(argv) == 0 {
		return nil
	}
	p := r.program(argv[0])
	if p == nil {
		return nil
	}
	if warning {
		p.Name = name
	}
	p.Warning = p.Warning || warning || errors.Is(p.Err, errVolume)
	return []Problem{*p}
}

// program checks a program, as PID 1 looks for it and the kernel starts it.
func (r Request) program(name string) *Problem {
	f, err := r.find(name)
	if errors.Is(err, errUnknown) {
		return nil
	}
	if err != nil {
		return &Problem{Name: Entrypoint, Err: err}
	}
	return r.execute(f, name, 0)
}

// file is a file of the image.
type file struct {
	*rootfs.Inode
	path string // without symlinks, and without a leading slash
}

// errUnknown says that only the running system knows.
var errUnknown = errors.New("not known before the start")

// find looks for a program as PID 1 does.
func (r Request) find(name string) (*file, error) {
	if name == "" {
		return nil, errors.New("its name is empty")
	}
	if strings.ContainsRune(name, '/') {
		return r.executable(name)
	}
	if slices.ContainsFunc(r.Parameters, func(p manifest.Parameter) bool { return p.Name == "PATH" }) {
		return nil, errUnknown
	}
	search := manifest.DefaultPath
	for _, e := range r.App.Env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			search = p
		}
	}
	var refused error
	volume := false
	for _, dir := range strings.Split(search, ":") {
		f, err := r.executable(path.Join(dir, name))
		if err == nil || errors.Is(err, errUnknown) {
			return f, err
		}
		volume = volume || errors.Is(err, errVolume)
		if refused == nil && !errors.Is(err, errMissing) && !errors.Is(err, errDirectory) {
			refused = err
		}
	}
	if refused == nil {
		refused = fmt.Errorf("%q is not in PATH=%s", name, search)
	}
	if volume && !errors.Is(refused, errVolume) {
		refused = fmt.Errorf("%w, %w", refused, errVolume)
	}
	return nil, refused
}

var (
	errMissing   = errors.New("not in the image")
	errDirectory = errors.New("a directory")
	errVolume    = errors.New("unless a volume brings it")
)

// orVolume marks an error of what is at a path, without symlinks, to which a volume may bring something else.
func (r Request) orVolume(err error, real string) error {
	if errors.Is(err, errVolume) {
		return err
	}
	for _, v := range r.App.Volumes {
		dir, _, _ := r.Tree.Resolve(v)
		if strings.HasPrefix(real+"/", dir+"/") {
			return fmt.Errorf("%w, %w", err, errVolume)
		}
	}
	return err
}

// executable returns the file at a path that the kernel may execute.
func (r Request) executable(name string) (*file, error) {
	f, err := r.lookup(name)
	switch {
	case errors.Is(err, errUnknown):
		return nil, err
	case err != nil:
		err = fmt.Errorf("%q: %w", name, err)
	case f.Type == rootfs.Directory:
		err = fmt.Errorf("%q is %w", name, errDirectory)
	case f.Type != rootfs.Regular:
		err = fmt.Errorf("%q is not a regular file", name)
	case f.Perm&0o111 == 0:
		err = fmt.Errorf("%q is not executable: its mode is %04o", name, f.Perm)
	}
	if err != nil {
		real, _, _ := r.Tree.Resolve(r.absolute(name))
		return nil, r.orVolume(err, real)
	}
	return f, nil
}

// absolute is a path from the root: PID 1 starts the app in its working directory.
func (r Request) absolute(name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join("/", r.App.WorkingDir, name)
}

// lookup follows a path from the working directory. The error wraps errMissing where there is
// nothing, and is errUnknown where the path leads to what PID 1 mounts.
func (r Request) lookup(name string) (*file, error) {
	name = r.absolute(name)
	real, n, err := r.Tree.Resolve(name)
	switch {
	case manifest.ReservedDir("/"+real) != "":
		return nil, errUnknown
	case err != nil:
		return nil, err
	case n == nil && real != rootfs.Clean(name):
		return nil, fmt.Errorf("it leads to %q, which is %w", "/"+real, errMissing)
	case n == nil:
		return nil, errMissing
	}
	return &file{n, real}, nil
}

// directory says why PID 1 cannot make a directory, or go there.
func (r Request) directory(name string) error {
	f, err := r.lookup(name)
	switch {
	case errors.Is(err, errUnknown), errors.Is(err, errMissing): // PID 1 makes it
		return nil
	case err != nil:
		return fmt.Errorf("%q: %w", name, err)
	case f.Type != rootfs.Directory:
		return fmt.Errorf("%q is not a directory in the image", name)
	}
	return nil
}

// user says why PID 1 cannot tell who the app is to run as.
func (r Request) user() error {
	var files [2][]byte
	for i, name := range []string{"/etc/passwd", "/etc/group"} {
		f, err := r.lookup(name)
		switch {
		case errors.Is(err, errMissing):
			continue
		case err != nil, f.Type != rootfs.Regular, f.Size > maxUsers:
			return nil // PID 1 will say what is wrong with the file
		}
		if files[i], err = io.ReadAll(f.Open()); err != nil {
			return nil
		}
	}
	_, err := passwd.Resolve(r.App.User, files[0], files[1])
	return err
}

// maxUsers is the largest passwd or group that is read here, in bytes.
const maxUsers = 16 << 20
