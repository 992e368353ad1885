// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is one process of a host, which no other process is ever mistaken for: numbers
// are used again, but not within one tick of a clock.
type Process struct {
	PID    int    `json:"pid"`
	Start  uint64 `json:"start"`  // when it started, in clock ticks since boot: field 22 of /proc/PID/stat, see proc(5)
	BootID string `json:"bootID"` // /proc/sys/kernel/random/boot_id
}

// Identify returns the process that has a number now.
func Identify(pid int) (*Process, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	_, start, err := stat(pid)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return &Process{pid, start, boot}, nil
}

// Alive says whether the process is there. A zombie is not; nil is none.
func (p *Process) Alive() (bool, error) {
	if p == nil {
		return false, nil
	}
	boot, err := bootID()
	if err != nil || boot != p.BootID {
		return false, err
	}
	state, start, err := stat(p.PID)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("process %d: %w", p.PID, err)
	}
	return start == p.Start && state != 'Z' && state != 'X', nil
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

// stat returns a process's state and start time.
func stat(pid int) (state byte, start uint64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	return parseStat(data)
}

// parseStat reads fields 3 and 22. Field 2 is the program's name in parentheses, which
// may itself have spaces and parentheses.
func parseStat(data []byte) (state byte, start uint64, err error) {
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:])) // from field 3 on
	if len(fields) < 22-2 || len(fields[0]) != 1 {
		return 0, 0, fmt.Errorf("stat: %.200q", data)
	}
	start, err = strconv.ParseUint(fields[22-3], 10, 64)
	return fields[0][0], start, err
}
