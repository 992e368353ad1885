// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// mount is one file system that the app finds mounted.
type mount struct {
	fstype   string
	target   string
	flags    uintptr
	data     string
	optional bool // the kernel may be built without it
}

// mounts are those of docker, with its flags, except that the app owns this
// kernel: /sys is writable and /dev/shm as large as memory permits.
var mounts = []mount{
	{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", false},
	{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", false},
	{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755", false},
	{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666", true},
	{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=1777", true},
	{"mqueue", "/dev/mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", true},
	{"cgroup2", "/sys/fs/cgroup", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", true},
}

// mountAll mounts what every app may expect.
func mountAll() error {
	for _, m := range mounts {
		// Fails below /sys, where the kernel makes the directory if it can mount there.
		_ = unix.Mkdir(m.target, 0o755)
		err := unix.Mount(m.fstype, m.target, m.fstype, m.flags, m.data)
		if m.optional && (err == unix.ENODEV || err == unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mounting %s on %s: %w", m.fstype, m.target, err)
		}
	}
	for _, link := range []struct{ name, target string }{
		{"/dev/fd", "/proc/self/fd"},
		{"/dev/stdin", "/proc/self/fd/0"},
		{"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"},
	} {
		if err := unix.Symlink(link.target, link.name); err != nil && err != unix.EEXIST {
			return fmt.Errorf("making the symlink %s: %w", link.name, err)
		}
	}
	if err := mountScratch("/run", 0o755); err != nil {
		return err
	}
	return mountScratch("/tmp", 0o1777)
}

// mountScratch mounts a tmpfs on a directory that the image lacks or has left
// empty. On any other it would hide the image's own files, and the root is a
// tmpfs anyway. Programs may be executed there, as in docker.
func mountScratch(path string, mode uint32) error {
	owner := unix.Stat_t{Mode: mode}
	names, err := readDir(path)
	switch {
	case err == unix.ENOENT:
		if unix.Mkdir(path, 0o755) != nil {
			return nil // a dangling link: what the image wants
		}
	case err != nil || len(names) > 0:
		return nil
	default:
		if err := unix.Stat(path, &owner); err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
	}
	data := "mode=" + strconv.FormatUint(uint64(owner.Mode&0o7777), 8) +
		",uid=" + strconv.Itoa(int(owner.Uid)) + ",gid=" + strconv.Itoa(int(owner.Gid))
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return fmt.Errorf("mounting tmpfs on %s: %w", path, err)
	}
	return nil
}
