// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Signal returns the signal that asks the app to stop. As in docker, a name may
// lack its SIG and be in lower case, SIGRTMIN+N is a real-time signal, and a
// number stands for itself.
func (a *App) Signal() (unix.Signal, error) {
	if a.StopSignal == "" {
		return unix.SIGTERM, nil
	}
	s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(a.StopSignal), "SIG"))
	number, base := a.StopSignal, 0
	if rest, ok := strings.CutPrefix(a.StopSignal, "SIGRTMIN+"); ok {
		number, base = rest, 34 // as the C library counts
	}
	if n, err := strconv.Atoi(number); err == nil {
		s = unix.Signal(base + n)
	}
	if s < 1 || s > 64 {
		return 0, fmt.Errorf("stop signal %q is not known", a.StopSignal)
	}
	return s, nil
}
