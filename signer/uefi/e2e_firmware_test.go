// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package uefi

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
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

	cmd := f.qemu(t, "-kernel", kernel, "-initrd", f.dir.path("initrd"), "-append", "console=ttyS0 panic=-1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "the end") {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func (f firmware) qemu(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35,smm=on", "-m", "1024",
		"-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
		"-drive", "if=pflash,unit=1,format=raw,file=" + f.dir.path("vars"),
		"-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot"}, args...)...)
}

// starts says whether firmware starts a program on a disk. A kernel's own loader
// is the first to speak then; it finds no root file system, and is not waited for.
func (f firmware) starts(t *testing.T, program []byte) bool {
	t.Helper()
	disk := files(t.TempDir())
	if err := os.MkdirAll(disk.path("EFI/BOOT"), 0o755); err != nil {
		t.Fatal(err)
	}
	disk.write(t, "EFI/BOOT/BOOTX64.EFI", program)
	cmd := f.qemu(t, "-drive", "format=raw,file=fat:rw:"+string(disk))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	var out strings.Builder
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		line := lines.Text()
		out.WriteString(line + "\n")
		switch {
		case strings.Contains(line, "UEFI Secure Boot is enabled"):
			return true
		case strings.Contains(line, "Access Denied"):
			return false
		}
	}
	t.Fatalf("firmware says nothing:\n%s", out.String())
	return false
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

// Real firmware takes our updates, from setup mode on, and no others. With them it
// starts what a leaf of ours signed, unless dbx revokes it in either form.
func TestE2EFirmware(t *testing.T) {
	kernels, err := filepath.Glob("/boot/vmlinuz-*")
	if err != nil || len(kernels) == 0 {
		t.Fatalf("no kernel in /boot: %v", err)
	}
	kernel := slices.Max(kernels)
	platform, exchange, stranger := testkey.NewAuthority(t).Key(t, nil), testkey.NewAuthority(t).Key(t, nil), testkey.NewAuthority(t).Key(t, nil)
	authority := testkey.NewAuthority(t)
	release, revoked, digested := authority.Key(t, nil), authority.Key(t, nil), authority.Key(t, nil)
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
		{"dbx-certificate", "dbx", "taken", payload(t, exchange, Update{Variable: "dbx", Lists: Certificate(revoked.Chain[0]), Time: now, Append: true})},
		{"dbx-digest", "dbx", "taken", payload(t, exchange, Update{Variable: "dbx", Lists: Revocation(digested.Chain[0]), Time: now.Add(time.Second), Append: true})},
	} {
		id, err := vendor(u.variable)
		if err != nil {
			t.Fatal(err)
		}
		updates[string(rune('a'+i))+"-"+u.name+"."+u.variable+"-"+id] = u.data
		want = append(want, "update: "+string(rune('a'+i))+"-"+u.name+" "+u.verdict)
	}
	f := newFirmware(t)
	out := f.boot(t, kernel, updates)
	for _, line := range want {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}

	// After a reset, Secure Boot is on. What is in db is in .platform; of dbx, the
	// kernel takes the digest and the time of revocation for one digest.
	out = f.boot(t, kernel, nil)
	sum := sha256.Sum256(digested.Chain[0].RawTBSCertificate)
	for _, line := range []string{
		"Secure boot enabled", ".platform: 2\n",
		hex.EncodeToString(release.Chain[1].SubjectKeyId) + ": X509.rsa", hex.EncodeToString(exchange.Chain[1].SubjectKeyId) + ": X509.rsa",
		"blacklist tbs:" + hex.EncodeToString(sum[:]) + strings.Repeat("00", 16) + "\n",
	} {
		if !strings.Contains(strings.ReplaceAll(out, "\r", ""), line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}

	for _, test := range []struct {
		name string
		key  *signer.Key
		want bool
	}{
		{"signed by a leaf of db's authority", release, true},
		{"signed by its leaf whose certificate is in dbx", revoked, false},
		{"signed by its leaf whose digest is in dbx", digested, false},
		{"signed by another", stranger, false},
	} {
		dir := files(t.TempDir())
		testkey.Write(t, string(dir), test.key)
		dir.run(t, "sbsign", "--key", "signing.key", "--cert", "signing.crt", "--output", "kernel", kernel)
		if got := f.starts(t, dir.read(t, "kernel")); got != test.want {
			t.Errorf("%s: starts: %v", test.name, got)
		}
	}
}
