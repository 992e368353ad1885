// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"testing"
	"time"
)

func TestHealthState(t *testing.T) {
	s := healthState{retries: 2}
	for i, step := range []struct {
		ok      bool
		changed bool
		status  string
	}{
		{false, false, ""},
		{false, false, ""},
		{false, false, ""}, // one that starts is not unhealthy yet
		{true, true, "healthy"},
		{true, false, "healthy"},
		{false, false, "healthy"},
		{true, false, "healthy"}, // not in a row
		{false, false, "healthy"},
		{false, true, "unhealthy"},
		{false, false, "unhealthy"},
		{true, true, "healthy"},
	} {
		if changed := s.observe(step.ok); changed != step.changed || s.status != step.status {
			t.Errorf("step %d: got %v, %q, want %v, %q", i, changed, s.status, step.changed, step.status)
		}
	}
}

func TestCheckTCP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err) // a machine without IPv6
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := checkTCP(port, time.Second); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		l.Close()
		if err := checkTCP(port, time.Second); err == nil {
			t.Errorf("%s: nothing listens, and it is healthy", address)
		}
	}
}
