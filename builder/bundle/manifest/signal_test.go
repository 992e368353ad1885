// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignal(t *testing.T) {
	for name, want := range map[string]unix.Signal{
		"": unix.SIGTERM, "SIGQUIT": unix.SIGQUIT, "quit": unix.SIGQUIT, "28": 28, "64": 64, "65": 0, "0": 0, "-1": 0, "SIGNOPE": 0, "SIG": 0, "SIGRTMIN+3": 37, "SIGRTMIN+31": 0, "SIGRTMIN+x": 0,
	} {
		got, err := (&App{StopSignal: name}).Signal()
		if (err == nil) != (want != 0) || err == nil && got != want {
			t.Errorf("%q: got %d, %v, want %d", name, got, err, want)
		}
	}
}
