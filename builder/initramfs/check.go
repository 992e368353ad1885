// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"time"

	"github.com/tenon-build/tenon/builder/rootfs"
)

// ErrMisfit says that a file has something that an archive has no place for; test
// with errors.Is.
var ErrMisfit = errors.New("not for an initramfs")

// misfit is an ErrMisfit in words of its own.
type misfit string

func (m misfit) Error() string        { return string(m) }
func (m misfit) Is(target error) bool { return target == ErrMisfit }

// The kernel puts 12 and 20 bits into one number, and cuts what is above.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// Check says, as an ErrMisfit, what of a file makes that no archive can hold it.
// Its time and its extended attributes do not count.
func Check(name string, n *rootfs.Inode) error {
	switch {
	case len(name) >= rootfs.PathMax || len(n.Target) >= rootfs.PathMax:
		return misfit(fmt.Sprintf("name or link target longer than %d bytes", rootfs.PathMax-1))
	case len(path.Base(name)) > rootfs.NameMax:
		return misfit(fmt.Sprintf("last element of the name longer than %d bytes", rootfs.NameMax))
	case n.Type == rootfs.Symlink && n.Target == "":
		return misfit("symlink without a target")
	case strings.ContainsRune(name, 0) || strings.ContainsRune(n.Target, 0):
		return misfit("name or link target with a NUL byte")
	case name == "TRAILER!!!":
		return misfit("the kernel would take this name for the end of the archive")
	}
	for _, field := range []struct {
		what  string
		value int64
	}{{"uid", int64(n.UID)}, {"gid", int64(n.GID)}, {"size", n.Size}} {
		if err := checkFits(field.what, field.value); err != nil {
			return err
		}
	}
	device := n.Type == rootfs.CharDevice || n.Type == rootfs.BlockDevice
	if device && (n.Major > maxMajor || n.Minor > maxMinor) {
		return misfit(fmt.Sprintf("device %d:%d does not fit the kernel's numbers", n.Major, n.Minor))
	}
	return nil
}

// CheckTime says, as an ErrMisfit, that an archive cannot hold a file's time of
// modification. Fractions of a second are cut, as most layers have none.
func CheckTime(n *rootfs.Inode) error { return checkFits("modification time", n.ModTime.Unix()) }

// ClampTime returns the nearest time that an archive can hold.
func ClampTime(t time.Time) time.Time {
	return time.Unix(min(max(t.Unix(), 0), math.MaxUint32), 0)
}

func checkFits(what string, value int64) error {
	if value < 0 || value > math.MaxUint32 {
		return misfit(fmt.Sprintf("%s %d does not fit the initramfs format (32 bits)", what, value))
	}
	return nil
}
