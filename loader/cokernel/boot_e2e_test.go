//go:build e2e

package cokernel

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/tenon-build/tenon/testdata/debian"
)

func TestE2EBoot(t *testing.T) {
	inHost(t, debian.Machine{Small: true}, "allow_unsigned=1", func(d *device) {
		o := create(t, d, "boot")
		ok(t, "reserve", o.reserve(0, 512<<20))
		ok(t, "take", o.take(2, false))
		ok(t, "take", o.take(3, false))
		f, err := os.Open("/work/wt-guest/demo/bzImage")
		ok(t, "open", err)
		began := time.Now()
		ok(t, "load", o.load(image{kernel: f, possibleCPUs: 2}))
		t.Log("loaded in", time.Since(began))
		c, err := o.channel(streamConsole)
		ok(t, "console", err)
		ok(t, "start", o.start())
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		data, err := io.ReadAll(c)
		t.Logf("%s %v", data, err)
		s, _ := o.status()
		t.Logf("%+v", s)
		ok(t, "end", o.end())
		ok(t, "close", o.Close())
		ok(t, "close", c.Close())
	})
}
