// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	mobyuser "github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// QEMU never runs as root: it is started as a user that no account has, another one for each
// machine, so that a guest that breaks out of it has neither the host nor other machines. QEMU's
// own option for that (-runas, -run-with user=) would come after it has read images and set up
// devices, needs the system calls that its sandbox refuses, and makes the kernel forget that
// QEMU is to end with its parent.

// User and group IDs that systemd's documentation lists as unused (UIDS-GIDS), and that are
// above what shadow gives out for user namespaces (SUB_UID_MAX in login.defs(5)) and SSSD maps
// directories to (ldap_idmap_range_max in sssd-ad(5)).
const (
	firstUser = 2_000_200_001
	lastUser  = 1<<31 - 2
)

// rights are what QEMU has on the host.
type rights struct {
	credential *syscall.Credential // nil: this process's own, which is not root
	ambient    []uintptr           // capabilities
}

// newRights returns the fewest with which QEMU does its work. Root of a user namespace, or one
// without the capability to become others, is no more than a user: QEMU has its rights.
func newRights(listens forwards) (*rights, error) {
	if os.Geteuid() != 0 || !becomesOthers() {
		return &rights{}, nil
	}
	id, err := unusedUser("/etc/subuid", "/etc/subgid")
	if err != nil {
		return nil, err
	}
	r := &rights{credential: &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}}
	if group, ok := kvmGroup(); ok {
		r.credential.Groups = []uint32{group}
	}
	if listens.privileged() {
		r.ambient = []uintptr{unix.CAP_NET_BIND_SERVICE}
	}
	return r, nil
}

// becomesOthers says whether this process may become every user and group.
func becomesOthers() bool {
	for _, file := range []string{"uid_map", "gid_map"} {
		ids, err := os.ReadFile("/proc/self/" + file)
		if err != nil || !slices.Equal(strings.Fields(string(ids)), []string{"0", "0", "4294967295"}) {
			return false
		}
	}
	var have [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &have[0]); err != nil {
		return false
	}
	const needed = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return have[0].Effective&needed == needed
}

// unusedUser returns an ID at random that no account and no group has, and that nobody may use
// in a user namespace by the files of subuid(5): all of these could send QEMU signals, or read
// what it has.
func unusedUser(files ...string) (int, error) {
	var lent []mobyuser.SubID
	for _, path := range files {
		ids, err := mobyuser.ParseSubIDFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("looking for a user that QEMU can be: %w", err)
		}
		lent = append(lent, ids...)
	}
	for range 100 {
		id := firstUser + rand.IntN(lastUser-firstUser+1)
		if slices.ContainsFunc(lent, func(s mobyuser.SubID) bool { return int64(id) >= s.SubID && int64(id)-s.SubID < s.Count }) {
			continue
		}
		_, err := user.LookupId(strconv.Itoa(id))
		if errors.As(err, new(user.UnknownUserIdError)) {
			_, err = user.LookupGroupId(strconv.Itoa(id))
		}
		if errors.As(err, new(user.UnknownGroupIdError)) {
			return id, nil
		}
		if err != nil {
			return 0, fmt.Errorf("looking for a user that QEMU can be: %w", err)
		}
	}
	return 0, fmt.Errorf("users %d to %d have accounts or are lent: QEMU has none to be", firstUser, lastUser)
}

// kvmGroup is the group that may use /dev/kvm, if one other than root's may.
func kvmGroup() (uint32, bool) {
	info, err := os.Stat("/dev/kvm")
	if err != nil || info.Mode()&0o060 != 0o060 {
		return 0, false
	}
	group := info.Sys().(*syscall.Stat_t).Gid
	return group, group != 0
}

// forwards are the ports of the host that QEMU listens at.
type forwards []int

// privileged says whether one is only for who has CAP_NET_BIND_SERVICE: see ip(7).
func (f forwards) privileged() bool {
	first := 1024
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			first = n
		}
	}
	for _, port := range f {
		if port < first {
			return true
		}
	}
	return false
}

// attributes are how a process with these rights is started. It does not outlive us, and Ctrl-C is
// ours to handle.
func (r *rights) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: r.credential, AmbientCaps: r.ambient}
}

// keeper has files open for QEMU to read: what QEMU itself inherits it keeps for good, and with
// that the memory of the file, and files of another user's process it cannot open. As root, it is a
// process of QEMU's user that waits for the end of its input; else it is this one.
type keeper struct {
	files []*os.File
	wait  *exec.Cmd // nil: none
	input io.Closer // of wait
}

// keep keeps copies of files, and returns the paths at which QEMU finds them.
func (r *rights) keep(files ...*os.File) (k *keeper, paths []string, err error) {
	k = &keeper{}
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, nil, errors.Join(err, k.Close())
		}
		k.files = append(k.files, os.NewFile(uintptr(fd), f.Name()))
	}
	if r.credential == nil {
		for _, f := range k.files {
			paths = append(paths, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()))
		}
		return k, paths, nil
	}
	cmd := exec.Command("cat")
	cmd.Dir = "/"
	cmd.ExtraFiles = k.files
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: r.credential.Uid, Gid: r.credential.Gid}}
	if k.input, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("keeping the images open for QEMU: %w", err), k.Close())
	}
	k.wait = cmd
	for i := range k.files {
		paths = append(paths, fmt.Sprintf("/proc/%d/fd/%d", cmd.Process.Pid, 3+i))
	}
	closeAll(&k.files)
	return k, paths, nil
}

// Close closes the files. It may be called again.
func (k *keeper) Close() error {
	if k == nil {
		return nil
	}
	closeAll(&k.files)
	if k.input != nil {
		_ = k.input.Close()
	}
	if k.wait == nil {
		return nil
	}
	wait := k.wait
	k.wait = nil
	return wait.Wait()
}
