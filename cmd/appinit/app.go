// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/passwd"
	"github.com/tenon-build/tenon/loader/control"
)

// openFiles is docker's limit of open files, and the kernel's own (fs.nr_open).
const openFiles = 1 << 20

// app is what runs, and as whom.
type app struct {
	argv []string
	env  []string
	user *passwd.Identity

	isolated  bool // it is PID 1 of a namespace
	namespace int  // pidfd of the app, whose namespace other commands join; 0: none
}

// newApp resolves the spec against the image's files, and goes to the working
// directory, for the app to inherit.
func newApp(spec *manifest.Spec, config *control.Configure) (*app, error) {
	env, err := spec.Environment(config.Env)
	if err != nil {
		return nil, fmt.Errorf("the host's configuration is refused: %w", err)
	}
	// Images without these files are common.
	users, err := readFile("/etc/passwd")
	if err != nil && err != unix.ENOENT {
		return nil, fmt.Errorf("reading /etc/passwd: %w", err)
	}
	groups, err := readFile("/etc/group")
	if err != nil && err != unix.ENOENT {
		return nil, fmt.Errorf("reading /etc/group: %w", err)
	}
	user, err := passwd.Resolve(spec.App.User, users, groups)
	if err != nil {
		return nil, err
	}
	// Before the change of user, who may not be allowed to go there.
	dir := path.Join("/", spec.App.WorkingDir)
	if err := mkdirAll(dir); err != nil {
		return nil, fmt.Errorf("making the working directory %s: %w", dir, err)
	}
	if err := unix.Chdir(dir); err != nil {
		return nil, fmt.Errorf("going to the working directory %s: %w", dir, err)
	}
	return &app{
		argv: slices.Concat(spec.App.Entrypoint, spec.App.Cmd),
		env:  withDefaults(env, config.Hostname, user.Home),
		user: user, isolated: spec.App.PIDNamespace,
	}, nil
}

// withDefaults adds the variables that docker sets when the image does not.
func withDefaults(env []string, hostname, home string) []string {
	for _, d := range [][2]string{{"PATH", manifest.DefaultPath}, {"HOSTNAME", hostname}, {"HOME", home}} {
		if _, ok := lookupEnv(env, d[0]); !ok {
			env = append(env, d[0]+"="+d[1])
		}
	}
	return env
}

func lookupEnv(env []string, name string) (string, bool) {
	for _, e := range slices.Backward(env) { // as docker has it, the last one counts
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// start starts the app with the console as its own, so that one that is not
// root can open /dev/stdout.
func (a *app) start(c *children) (int, <-chan unix.WaitStatus, error) {
	if err := unix.Fchown(1, int(a.user.UID), int(a.user.GID)); err != nil {
		return 0, nil, fmt.Errorf("giving the console to the app: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: openFiles, Max: openFiles}); err != nil {
		return 0, nil, fmt.Errorf("setrlimit(RLIMIT_NOFILE, %d): %w", openFiles, err)
	}
	if a.isolated {
		return a.startIsolated(c)
	}
	return a.exec(c, a.argv, 1, 2)
}

// exec runs a command as the app's user, in a session of its own, and in the app's namespace.
func (a *app) exec(c *children, argv []string, stdout, stderr uintptr) (int, <-chan unix.WaitStatus, error) {
	file, err := a.lookPath(argv[0])
	if err != nil {
		return 0, nil, err
	}
	leave, err := a.joinNamespace()
	if err != nil {
		return 0, nil, err
	}
	defer leave()
	pid, status, err := c.start(file, argv, &syscall.ProcAttr{
		Env:   a.env,
		Files: []uintptr{0, stdout, stderr},
		Sys: &syscall.SysProcAttr{
			Setsid:     true,
			Credential: &syscall.Credential{Uid: a.user.UID, Gid: a.user.GID, Groups: a.user.Groups},
		},
	})
	if err != nil {
		return 0, nil, execError(file, err)
	}
	return pid, status, nil
}

func (a *app) lookPath(name string) (string, error) {
	search, _ := lookupEnv(a.env, "PATH")
	return lookPath(name, search)
}

// lookPath finds an executable file as execvp(3) does.
func lookPath(name, search string) (string, error) {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = strings.Split(search, ":")
		for i, dir := range candidates {
			candidates[i] = path.Join(dir, name)
		}
	}
	found := error(unix.ENOENT)
	for _, file := range candidates {
		var info unix.Stat_t
		err := unix.Stat(file, &info)
		if err == nil && info.Mode&unix.S_IFMT != unix.S_IFDIR && info.Mode&0o111 != 0 {
			return file, nil
		}
		if err == nil || err == unix.EACCES {
			found = unix.EACCES
		}
	}
	return "", execError(name, found)
}

// execError gives err the code that docker exits with.
func execError(file string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return &startError{127, fmt.Errorf("starting %s: it, or the interpreter that it names, is not found", file)}
	}
	return &startError{126, fmt.Errorf("starting %s: %w", file, err)}
}
