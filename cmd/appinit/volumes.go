// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// writable is what stays so below a read-only root, as in docker: the machine's
// own files, and what is for a while.
var writable = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run", "/tmp"}

// mountVolumes makes a mount point of each volume, parents first. The root is
// in memory and this instance's own, so a volume is what the image has there,
// mounted onto itself: docker's first copy of it, without the copying.
func mountVolumes(volumes []string) error {
	for _, path := range volumes {
		if err := mkdirAll(path); err != nil {
			return fmt.Errorf("making volume %s: %w", path, err)
		}
		if err := bind(path); err != nil {
			return err
		}
	}
	return nil
}

// sealRoot makes the root read-only: all that is not a mount of its own.
func sealRoot() error {
	for _, path := range writable {
		if unix.Access(path, unix.F_OK) != nil {
			continue // a dangling link, or a file that the image lacks
		}
		if err := bind(path); err != nil {
			return err
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("remounting / read-only: %w", err)
	}
	return nil
}

// bind mounts a file or directory, with what is mounted below, onto itself.
func bind(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s onto itself: %w", path, err)
	}
	return nil
}
