// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package uefi

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/internal/testkey"
)

// firmware is a machine of its own, with variables that outlive a boot.
type firmware struct{ dir files }

func newFirmware(t *testing.T) firmware {
	t.Helper()
	f := firmware{files(t.TempDir())}
	vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	if err != nil {
		t.Fatal(err)
	}
	f.dir.write(t, "vars", vars)
	return f
}

// boot boots a kernel that writes updates, and returns what it prints.
func (f firmware) boot(t *testing.T, kernel string, updates map[string][]byte) string {
	t.Helper()
	root := files(t.TempDir())
	for _, name := range []string{"dev", "proc", "sys", "updates"} {
		if err := os.Mkdir(root.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	modules, err := filepath.Glob("/lib/modules/*/kernel/fs/efivarfs/efivarfs.ko")
	if err != nil || len(modules) == 0 {
		t.Fatalf("no efivarfs: %v", err)
	}
	module, err := os.ReadFile(slices.Max(modules))
	if err != nil {
		t.Fatal(err)
	}
	root.write(t, "efivarfs.ko", module)
	if out, err := exec.Command("go", "build", "-o", root.path("init"), "./testdata/init").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, data := range updates {
		root.write(t, "updates/"+name, data)
	}
	if err := unix.Mknod(root.path("dev/console"), unix.S_IFCHR|0o600, int(unix.Mkdev(5, 1))); err != nil {
		t.Fatal(err)
	}
	root.run(t, "sh", "-c", "find . | cpio --quiet -o -H newc > "+f.dir.path("initrd"))

	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "timeout", "40", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max",
		"-machine", "q35,smm=on", "-m", "1024", "-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
		"-drive", "if=pflash,unit=1,format=raw,file="+f.dir.path("vars"),
		"-kernel", kernel, "-initrd", f.dir.path("initrd"), "-append", "console=ttyS0 panic=-1",
		"-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "the end") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

// payload is what efivarfs takes for an update: its attributes, then the bytes.
func payload(t *testing.T, key *signer.Key, u Update) []byte {
	t.Helper()
	b, err := Sign(key, u)
	if err != nil {
		t.Fatal(err)
	}
	attrs := uint32(attributes)
	if u.Append {
		attrs |= appendWrite
	}
	return append(binary.LittleEndian.AppendUint32(nil, attrs), b...)
}

// Real firmware takes our updates, from setup mode on, and no others. With them
// it boots what we sign, and the kernel has our certificate in a keyring.
func TestE2EFirmware(t *testing.T) {
	kernels, err := filepath.Glob("/boot/vmlinuz-*")
	if err != nil || len(kernels) == 0 {
		t.Fatalf("no kernel in /boot: %v", err)
	}
	kernel := slices.Max(kernels)
	platform, exchange, stranger := testkey.NewAuthority(t).Key(t, nil), testkey.NewAuthority(t).Key(t, nil), testkey.NewAuthority(t).Key(t, nil)
	authority := testkey.NewAuthority(t)
	release, revoked := authority.Key(t, nil), authority.Key(t, func(c *x509.Certificate) { c.Subject.CommonName = "revoked" })
	now := time.Now()
	lists := func(variable string, key *signer.Key, place int) []byte {
		b, err := Lists(variable, key.Chain[place])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	flipped := payload(t, exchange, Update{Variable: "db", Lists: lists("db", release, 1), Time: now})
	flipped[len(flipped)-1] ^= 1
	updates := map[string][]byte{}
	var want []string
	for i, u := range []struct {
		name, variable, verdict string
		data                    []byte
	}{
		{"PK-by-another", "PK", "refused", payload(t, stranger, Update{Variable: "PK", Lists: lists("PK", platform, 0), Time: now})},
		{"PK", "PK", "taken", payload(t, platform, Update{Variable: "PK", Lists: lists("PK", platform, 0), Time: now})},
		{"KEK-by-another", "KEK", "refused", payload(t, stranger, Update{Variable: "KEK", Lists: lists("KEK", exchange, 1), Time: now})},
		{"KEK", "KEK", "taken", payload(t, platform, Update{Variable: "KEK", Lists: lists("KEK", exchange, 1), Time: now})},
		{"db-by-another", "db", "refused", payload(t, stranger, Update{Variable: "db", Lists: lists("db", release, 1), Time: now})},
		{"db-flipped", "db", "refused", flipped},
		{"db", "db", "taken", payload(t, exchange, Update{Variable: "db", Lists: lists("db", release, 1), Time: now})},
		{"db-older", "db", "refused", payload(t, exchange, Update{Variable: "db", Lists: lists("db", stranger, 1), Time: now.Add(-time.Hour)})},
		{"db-append", "db", "taken", payload(t, exchange, Update{Variable: "db", Lists: lists("db", exchange, 1), Time: now.Add(time.Hour), Append: true})},
		{"dbx-append", "dbx", "taken", payload(t, exchange, Update{Variable: "dbx", Lists: lists("dbx", revoked, 0), Time: now, Append: true})},
	} {
		id, err := vendor(u.variable)
		if err != nil {
			t.Fatal(err)
		}
		updates[string(rune('a'+i))+"-"+u.name+"."+u.variable+"-"+id] = u.data
		want = append(want, "update: "+string(rune('a'+i))+"-"+u.name+" "+u.verdict)
	}
	f := newFirmware(t)
	start := time.Now()
	out := f.boot(t, kernel, updates)
	t.Logf("%s\n%s", time.Since(start), out[strings.LastIndex(out, "update: a-"):])
	for _, line := range want {
		if !strings.Contains(out, line) {
			t.Errorf("no %q", line)
		}
	}
	testkey.Write(t, string(f.dir), release)
	f.dir.run(t, "sbsign", "--key", "signing.key", "--cert", "signing.crt", "--output", "kernel", kernel)
	start = time.Now()
	out = f.boot(t, f.dir.path("kernel"), nil)
	t.Logf("%s\n%s", time.Since(start), out[strings.LastIndex(out, "key: "):])
	testkey.Write(t, string(f.dir), revoked)
	f.dir.run(t, "sbsign", "--key", "signing.key", "--cert", "signing.crt", "--output", "kernel2", kernel)
	f.boot(t, f.dir.path("kernel2"), nil)
	os.WriteFile("/tmp/prof-src/boot2.log", []byte(out), 0o644)
}
