// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cokernel

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// bundleEnv names the bundle in a guest, which builds none.
const bundleEnv = "TENON_TEST_BUNDLE"

// The module hands any initrd to a sealed kernel. The kernel takes the one that it is sealed
// to, wherever it lies, and stops before it unpacks another.
func TestE2ESeal(t *testing.T) {
	if os.Getenv(bundleEnv) == "" {
		t.Setenv(bundleEnv, e2e.CokernelProbe(t))
	}
	inHost(t, debian.Machine{}, "allow_unsigned=1", func(d *device) {
		kernel := e2e.Must(os.ReadFile(e2e.LayerFile(t, os.Getenv(bundleEnv), bundle.KernelType)))
		good := e2e.Must(os.ReadFile(e2e.LayerFile(t, os.Getenv(bundleEnv), bundle.InitramfsType)))
		boot := func(initrd []byte, text string, nodes ...int64) (string, *statusArg) {
			t.Helper()
			o := create(t, d, "sealed")
			for node, bytes := range nodes {
				ok(t, "reserve", o.reserve(t.Context(), node, bytes))
			}
			s, err := o.status()
			ok(t, "status", err)
			ok(t, "take", o.take(1, false))
			i := image{kernel: memory(t, kernel), possibleCPUs: 1}
			if initrd != nil {
				i.initrd = memory(t, initrd)
			}
			if err := o.load(i); text == "" {
				want(t, "load what fits nowhere", err, unix.ENOSPC)
				ok(t, "end", errors.Join(o.end(), o.Close()))
				return "", s
			} else {
				ok(t, "load", err)
			}
			ok(t, "start", o.start())
			console, err := o.channel(streamConsole)
			ok(t, "console", err)
			ok(t, "deadline", console.SetReadDeadline(time.Now().Add(time.Minute)))
			var out strings.Builder
			for part := make([]byte, 4096); !lineWith(out.String(), text); {
				n, err := console.Read(part)
				out.Write(part[:n])
				if err != nil {
					t.Errorf("no %q: %v:\n%s", text, err, out.String())
					break
				}
			}
			ok(t, "end", errors.Join(console.Close(), o.end(), o.Close()))
			return out.String(), s
		}
		boot(good, "REPORT", 128<<20)
		console, s := boot(good, "REPORT", 96<<20, 16<<20)
		place := regexp.MustCompile(`RAMDISK: \[mem (0x[0-9a-f]+)-`).FindStringSubmatch(strings.Join(e2e.ParseReport(t, console).Kmsg, "\n"))
		if place == nil {
			t.Fatalf("the kernel does not say where its initramfs is:\n%s", console)
		}
		at := e2e.Must(strconv.ParseUint(place[1], 0, 64))
		if !slices.ContainsFunc(s.ranges[:s.rangeCount], func(r rangeArg) bool { return r.node == 1 && at >= r.start && at < r.start+r.bytes }) {
			t.Errorf("the initramfs is at %#x, and not in the second node's range: %+v", at, s.ranges[:s.rangeCount])
		}
		boot(append(good, make([]byte, 120<<20)...), "", 96<<20, 96<<20) // more than either has
		for _, h := range e2e.HostileInitrds(t, good) {
			console, _ := boot(h.Data, "Kernel panic - not syncing: tenon: ", 128<<20)
			if strings.Contains(console, "HOSTILE") || strings.Contains(console, "REPORT") {
				t.Errorf("%s: it was not stopped:\n%s", h.Name, console)
			}
		}
	})
}

// lineWith says whether there is a whole line with a text.
func lineWith(console, text string) bool {
	_, rest, found := strings.Cut(console, text)
	return found && strings.Contains(rest, "\n")
}
