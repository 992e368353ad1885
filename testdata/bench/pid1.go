// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/testdata/e2e"
)

const pid1Recipe = `description = "how long PID 1 takes"

[app]
entrypoint = ["/bin/started"]

[claims]
cpus = { min = 1, max = 1 }
memory = { min = "4MiB", max = "1GiB" }
net = { min = 1, max = 1 }
`

// startedRE is what the app says, in microseconds: see started.c.
var startedRE = regexp.MustCompile(`(?m)^STARTED (\d+)`)

// pid1 compares appinit with a PID 1 in C that mounts /dev and does nothing else: what QEMU
// takes to translate the kernel's own part, mostly.
func pid1(j *job) []series {
	dir := j.TempDir()
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(filepath.Join(rootfs, "bin"), 0o755); err != nil {
		j.Fatal(err)
	}
	j.step("compiling started.c")
	took(j, e2e.Command(j, "gcc", "-Os", "-static", "-o", filepath.Join(rootfs, "bin/started"), e2e.Path("testdata/started.c")))
	j.step("building a bundle of it")
	recipe := e2e.WriteFile(j, filepath.Join(dir, "started.toml"), []byte(pid1Recipe))
	started, _ := e2e.Build(j, "--detached", "-r", recipe, "--name", "started", "dir:"+rootfs)
	kernel, initramfs := e2e.LayerFile(j, started, bundle.KernelType), e2e.LayerFile(j, started, bundle.InitramfsType)

	needs := []string{"qemu-system-x86_64"}
	return []series{{
		unit:   microseconds,
		rounds: 11,
		subject: side{"appinit", needs, func(t e2e.T) sample {
			o := e2e.Run(t, started, "-q")
			m := startedRE.FindStringSubmatch(o.Stdout)
			if o.Code != 0 || m == nil {
				t.Fatal(o)
			}
			return ofMicroseconds(t, m[1])
		}},
		peers: []side{{"a PID 1 in C that mounts /dev alone", needs, func(t e2e.T) sample {
			m, _ := qemu(t, startedRE, "-m", "128", "-kernel", kernel, "-initrd", initramfs,
				"-append", "console=ttyS0 quiet rdinit=/bin/started")
			return ofMicroseconds(t, m[1])
		}}},
	}}
}

func ofMicroseconds(t e2e.T, text string) sample {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return sample(time.Duration(n) * time.Microsecond)
}
