// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/control"
)

// cpuTimeout is how long a CPU that the host adds may take to be there. The host waits
// twice as long for the answer.
const cpuTimeout = 5 * time.Second

// resize does what the host asks, one by one, and answers.
func (p *pid1) resize() {
	for r := range p.resizes {
		answer := &control.Resized{CPUs: r.CPUs}
		if err := setCPUs("/sys", r.CPUs, time.Now().Add(cpuTimeout)); err != nil {
			answer.Error = control.Line(err.Error())
		}
		p.host.send(&control.Message{Resized: answer})
	}
}

// setCPUs brings the first n CPUs online, each as soon as it is there, and takes the
// others offline. The kernel numbers CPUs in the order in which they came. The first
// one always is online.
func setCPUs(sys string, n int, deadline time.Time) error {
	for cpu := 1; cpu < n; {
		err := setOnline(sys, cpu, "1")
		switch {
		case err == nil:
			cpu++
		case err == unix.ENOENT && time.Now().Before(deadline):
			time.Sleep(time.Millisecond)
		default:
			return fmt.Errorf("bringing CPU %d online: %w", cpu, err)
		}
	}
	for cpu := n; ; cpu++ {
		err := setOnline(sys, cpu, "0")
		if err == unix.ENOENT {
			return nil
		}
		if err != nil {
			return fmt.Errorf("taking CPU %d offline: %w", cpu, err)
		}
	}
}

func setOnline(sys string, cpu int, value string) error {
	fd, err := unix.Open(sys+"/devices/system/cpu/cpu"+strconv.Itoa(cpu)+"/online", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}
