// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package signer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/kconfig/fragments"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/modsig"
	"github.com/tenon-build/tenon/testdata/e2e"
	"github.com/tenon-build/tenon/testdata/judge"
	"github.com/tenon-build/tenon/testdata/judge/uefi"
)

// Two kernels judge what we sign, each in one boot: one of our own, and
// Debian's under Secure Boot. Package judge says how they are asked.

func TestMain(m *testing.M) { e2e.Main(m) }

func judgeDir() string { return e2e.Path("testdata/judge") }

// judged is a case. A verdict is "0" or the name of an errno; empty where a kernel
// is not asked.
type judged struct {
	judge.Step
	tenon       string // "accepted", "refused", or empty where there is no image to judge
	own, debian string // what each kernel is expected to say
}

// TestE2EKexecJudge asks a kernel of our own, under lockdown, which trusts the
// test CA and takes revocations at run time.
func TestE2EKexecJudge(t *testing.T) {
	k, source := hostKernel(t)
	cases := append(imageCases(t), revokeCases(t)...)
	cases = append(cases, moduleCases(t, tinyModule(t, "-C", source.Dir, "O="+preparedTree(t, k, source)))...)
	said := askJudge(t, cases, "-machine", "q35", "-kernel", k.Path("bzImage"), "-initrd", judgeInitrd(t, cases),
		"-append", "console=ttyS0 lockdown=integrity loglevel=1 panic=-1")
	compareJudge(t, cases, said, func(c judged) string { return c.own })
}

// TestE2EKexecJudgeSecureBoot asks Debian's kernel, which OVMF takes for our
// signature on it; the test CA is in db.
func TestE2EKexecJudgeSecureBoot(t *testing.T) {
	found := e2e.Must(filepath.Glob("/boot/vmlinuz-*"))
	path := slices.Max(found)
	release := strings.TrimPrefix(path, "/boot/vmlinuz-")
	cases := append(imageCases(t), dbxCases(t)...)
	cases = append(cases, moduleCases(t, tinyModule(t, "-C", "/lib/modules/"+release+"/build"))...)

	dir := t.TempDir()
	esp := filepath.Join(dir, "esp")
	if err := os.Mkdir(esp, 0o700); err != nil {
		t.Fatal(err)
	}
	stock := e2e.Must(os.ReadFile(path))
	stock = unsigned(t, append(stock, make([]byte, -len(stock)&7)...))
	e2e.WriteFile(t, esp+"/linux.efi", attach(t, stock, peSignature(t, stock, newKey(t, nil))))
	if err := os.Rename(judgeInitrd(t, cases), esp+"/initrd"); err != nil {
		t.Fatal(err)
	}
	vars := e2e.Must(uefi.New(e2e.Must(os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd"))))
	vars.Secure(testCA(t).cert.Raw, dbxLists(t)...)
	vars.Boot(`\linux.efi`, `console=ttyS0 loglevel=1 panic=-1 initrd=\initrd`)
	e2e.WriteFile(t, dir+"/vars.fd", vars.Bytes())
	said := askJudge(t, cases, "-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
		"-drive", "if=pflash,unit=1,format=raw,file="+dir+"/vars.fd",
		"-drive", "if=none,id=esp,format=raw,readonly=on,file=fat:"+esp, "-device", "virtio-blk-pci,drive=esp")
	compareJudge(t, cases, said, func(c judged) string { return c.debian })
}

// hostKernel is a kernel of our own that trusts the test CA and takes revocations
// at run time. The cache has it after the first time: the CA never changes.
func hostKernel(t *testing.T) (*kernel.Kernel, *kernel.Source) {
	t.Helper()
	cache := e2e.Must(kernel.OpenCache(t.Context(), kernel.CacheOptions{Dir: os.Getenv("TENON_CACHE")}))
	t.Cleanup(func() { _ = cache.Close() })
	// The configuration names the file, so its name stands for its content.
	ca := e2e.Must(os.ReadFile(judgeDir() + "/ca.crt"))
	trusted := e2e.WriteFile(t, filepath.Join(e2e.Must(filepath.Abs(e2e.Cache())), fmt.Sprintf("test-ca-%.8x.crt", sha256.Sum256(ca))), ca)
	data := e2e.Must(os.ReadFile(judgeDir() + "/host.config"))
	data = fmt.Appendf(data, "CONFIG_SYSTEM_TRUSTED_KEYS=%s\n", kconfig.Quote(trusted))
	parts := []*kconfig.Fragment{e2e.Must(fragments.Open("base")), e2e.Must(fragments.Open("serial")), e2e.Must(kconfig.ParseFragment("testdata/judge/host.config", data))}
	source := e2e.Must(kernel.OpenSource(t.Context(), cache, "debian:6.1"))
	k, err := kernel.Build(t.Context(), cache, kernel.Request{
		Source: source, Toolchain: e2e.Must(kernel.FindToolchain(t.Context())), Fragments: parts, Jobs: 2,
		Progress: func(int, int) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	return k, source
}

// judgeInitrd is the guest's initramfs. The last step is the first again, and
// boots what it loaded.
func judgeInitrd(t *testing.T, cases []judged) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "guest")
	compile := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, judgeDir()+"/guest")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if o := e2e.Execute(compile); o.Code != 0 {
		t.Fatal(o)
	}
	var steps []judge.Step
	for _, c := range cases {
		steps = append(steps, c.Step)
	}
	last := steps[0]
	last.Name, last.Do = "reboot", judge.Reboot
	tree := rootfs.New()
	for name, data := range map[string][]byte{
		"init": e2e.Must(os.ReadFile(program)), judge.StepsPath: e2e.Must(json.Marshal(append(steps, last))),
		judge.BasePath: probeKernel(t), judge.InitramfsPath: e2e.Must(os.ReadFile(e2e.LayerFile(t, e2e.Probe(t), bundle.InitramfsType))),
	} {
		if err := tree.Put(name, rootfs.NewFile(bytes.NewReader(data), int64(len(data)), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.Put("dev/console", rootfs.NewDevice(5, 1, 0o600)); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := e2e.Must(zstd.NewWriter(&packed))
	if _, err := initramfs.Write(z, tree); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return e2e.WriteFile(t, filepath.Join(t.TempDir(), "initrd"), packed.Bytes())
}

// askJudge boots a machine and returns what its kernel said to each step. The
// machine ends as the app kernel, which has to answer.
func askJudge(t *testing.T, cases []judged, args ...string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	o := e2e.Execute(exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="}, args...)...))
	said := map[string]string{}
	for line := range strings.Lines(o.Stdout) {
		if _, verdict, ok := strings.Cut(strings.TrimSpace(line), judge.Said); ok {
			at := strings.LastIndexByte(verdict, ' ')
			said[verdict[:at]] = verdict[at+1:]
		}
	}
	if _, ok := said["lockdown none [integrity]"]; !ok || len(said) != len(cases)+1 {
		t.Fatalf("%d of %d verdicts, or no lockdown: %s", len(said)-1, len(cases), o)
	}
	if r := e2e.ParseReport(t, o.Stdout); r.Release == "" || r.Hostname != "probe" {
		t.Errorf("the app kernel did not answer: %+v", r)
	}
	t.Logf("the machine ran for %s", o.Took.Round(time.Second))
	return said
}

// compareJudge compares with what is expected, prints the table, and wants the
// same rows in docs/keys.md.
func compareJudge(t *testing.T, cases []judged, said map[string]string, expected func(judged) string) {
	t.Helper()
	doc := string(e2e.Must(os.ReadFile(e2e.Path("docs/keys.md"))))
	table := fmt.Sprintf("%-58s %-9s %-12s %s\n", "case", "tenon", "expected", "seen")
	for _, c := range cases {
		want, got := expected(c), said[c.Name]
		table += fmt.Sprintf("%-58s %-9s %-12s %s\n", c.Name, c.tenon, want, got)
		if got != want {
			t.Errorf("%s: the kernel says %s, want %s", c.Name, got, want)
		}
		if tenon := tenonSays(t, c); tenon != c.tenon {
			t.Errorf("%s: we say %s, want %s", c.Name, tenon, c.tenon)
		}
		if row := c.row(); !strings.Contains(doc, row) {
			t.Errorf("docs/keys.md has no row\n%s", row)
		}
	}
	t.Logf("\n%s", table)
}

// row is the case's in the table of docs/keys.md.
func (c judged) row() string {
	cell := func(s string) string {
		switch s {
		case "":
			return "-"
		case "0":
			return "taken"
		}
		return s
	}
	return fmt.Sprintf("| %s | %s | %s | %s |", c.Name, cell(c.tenon), cell(c.own), cell(c.debian))
}

// tenonSays judges the image of a step as loader.Verify does with each
// signature, and of several as kernels do: by the first.
func tenonSays(t *testing.T, c judged) string {
	t.Helper()
	var err error
	switch c.Do {
	case judge.Load:
		err = judgeImage(t, judge.Apply(probeKernel(t), c.Edits, c.Size))
	case judge.Insert:
		var who *signer.Signer
		if who, err = modsig.Verify(c.Data); err == nil {
			err = testCA(t).identity().CheckSigner(who, nil, time.Now())
		}
	default:
		return ""
	}
	if err != nil {
		t.Logf("%s: %v", c.Name, err)
		return "refused"
	}
	return "accepted"
}

func judgeImage(t *testing.T, image []byte) error {
	t.Helper()
	i, err := authenticode.Parse(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return err
	}
	if len(i.Certificates) == 0 {
		return fmt.Errorf("not signed")
	}
	who, err := authenticode.Verify(i.Certificates[0].Data, e2e.Must(i.Digest(t.Context())))
	if err != nil {
		return err
	}
	return testCA(t).identity().CheckSigner(who, nil, time.Now())
}

// probeKernel is the image under test: the kernel of the probe's bundle, as it
// lies there, unsigned.
func probeKernel(t *testing.T) []byte {
	t.Helper()
	if probeImage == nil {
		probeImage = e2e.Must(os.ReadFile(e2e.LayerFile(t, e2e.Probe(t), bundle.KernelType)))
	}
	return probeImage
}

var probeImage []byte

func pemFile(t *testing.T, kind string, ders ...[]byte) string {
	t.Helper()
	var b []byte
	for _, der := range ders {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return e2e.WriteFile(t, filepath.Join(t.TempDir(), "file.pem"), b)
}
