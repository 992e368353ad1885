// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// hostileInitrd is what an attacker who owns the boot loader would pass: ACPI
// tables and microcode in front, programs under every name that the kernel
// might run, a boot configuration behind.
func hostileInitrd(t *testing.T) string {
	t.Helper()
	var initrd bytes.Buffer
	early := rootfs.New()
	put := func(tree *rootfs.Tree, name string, data []byte, perm uint32) {
		if err := tree.Put(name, rootfs.NewFile(bytes.NewReader(data), int64(len(data)), perm)); err != nil {
			t.Fatal(err)
		}
	}
	put(early, "kernel/firmware/acpi/dsdt.aml", hostileDSDT(), 0o644)
	for _, vendor := range []string{"GenuineIntel", "AuthenticAMD"} {
		put(early, "kernel/x86/microcode/"+vendor+".bin", bytes.Repeat([]byte{0x41}, 4096), 0o644)
	}
	if _, err := initramfs.Write(&initrd, early); err != nil {
		t.Fatal(err)
	}

	programs := rootfs.New()
	busybox := must(os.ReadFile("/bin/busybox"))
	put(programs, "busybox", busybox, 0o755)
	for _, name := range []string{"init", "evil", "sbin/init", ".tenon/init"} {
		script := fmt.Sprintf("#!/busybox sh\n/busybox echo HOSTILE /%s\n/busybox sleep 1\n/busybox reboot -f\n", name)
		put(programs, name, []byte(script), 0o755)
	}
	if err := programs.Put("dev/console", rootfs.NewDevice(5, 1, 0o600)); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(&initrd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := initramfs.Write(z, programs); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	appendBootConfig(&initrd, "kernel.rdinit = /evil\nkernel.hostile = yes\n")
	path := filepath.Join(t.TempDir(), "hostile.cpio.zst")
	if err := os.WriteFile(path, initrd.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hostileDSDT is an empty table that claims to be newer than QEMU's.
func hostileDSDT() []byte {
	table := make([]byte, 36)
	copy(table, "DSDT")
	binary.LittleEndian.PutUint32(table[4:], uint32(len(table)))
	table[8] = 2
	copy(table[10:], "BOCHS BXPC    ")
	binary.LittleEndian.PutUint32(table[24:], 0xffff)
	copy(table[28:], "EVIL")
	var sum byte
	for _, b := range table {
		sum += b
	}
	table[9] = -sum
	return table
}

// appendBootConfig appends a boot configuration as Documentation/admin-guide/
// bootconfig.rst says: data, size, checksum, magic, the whole aligned to 4.
func appendBootConfig(initrd *bytes.Buffer, config string) {
	data := append([]byte(config), 0)
	for (initrd.Len()+len(data))%4 != 0 {
		data = append(data, 0)
	}
	var sum uint32
	for _, b := range data {
		sum += uint32(b)
	}
	initrd.Write(data)
	tail := binary.LittleEndian.AppendUint32(nil, uint32(len(data)))
	initrd.Write(binary.LittleEndian.AppendUint32(tail, sum))
	initrd.WriteString("#BOOTCONFIG\n")
}

// soak says that tests should prove more than fits into every run.
func soak() bool { return os.Getenv("TENON_SOAK") != "" }

// TestE2EReproducible builds the same kernel twice: next to others, from
// objects of another configuration, in the shared cache; and from nothing,
// elsewhere, with other surroundings. The digests must be equal.
func TestE2EReproducible(t *testing.T) {
	probeBundle(t) // so that "here" starts from objects of another configuration
	builds := map[string][]string{
		"tiny": {"--name", "tiny", "-r", must(filepath.Abs("../../testdata/recipes/tiny.toml")), image(t, nil, probeFiles...)},
	}
	if soak() {
		builds["redis"] = []string{"--name", "redis", "oci:" + required(t, "TENON_REDIS_IMAGE")}
		builds["redis detached"] = []string{"--name", "redis", "--detached", "oci:" + required(t, "TENON_REDIS_IMAGE")}
	}
	for name, args := range builds {
		t.Run(name, func(t *testing.T) {
			_, here := build(t, append(args, "-j", "2")...)
			elsewhere := filepath.Join(t.TempDir(), "some/other-folder")
			moved := filepath.Join(elsewhere, "image-by-another-name")
			if err := os.CopyFS(moved, os.DirFS(strings.TrimPrefix(args[len(args)-1], "oci:"))); err != nil {
				t.Fatal(err)
			}
			args[len(args)-1] = "oci:" + moved
			// The cache is new but for the unpacked source, which takes no part in this.
			cache := filepath.Join(elsewhere, "cache")
			linkSource(t, cache)
			script := "umask 077; cd \"$0\"; exec \"$@\""
			cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, elsewhere,
				tenon(t), "build", "-j", "3", "--cache-dir", cache, "-o", "other.tenon"}, args...)...)
			cmd.Env = append(os.Environ(), "TZ=Asia/Kathmandu", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8", "USER=somebody",
				"HOME="+elsewhere, "KBUILD_BUILD_USER=evil", "MAKEFLAGS=-k", "CFLAGS=-O0")
			o := execute(cmd)
			if o.code != 0 {
				t.Fatal(o)
			}
			t.Logf("from nothing: %s\n%s", o.took.Round(time.Second), o.stderr)
			if there := strings.TrimSpace(o.stdout); there != here {
				t.Errorf("digests differ: %s here, %s elsewhere", here, there)
			}
		})
	}
}

// linkSource shares the shared cache's unpacked sources with another cache.
func linkSource(t *testing.T, cache string) {
	t.Helper()
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(sharedCache(), "source"), filepath.Join(cache, "source")); err != nil {
		t.Fatal(err)
	}
}

// sharedCache is the cache that tests use unless they say otherwise.
func sharedCache() string {
	if dir := os.Getenv("TENON_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(must(os.UserCacheDir()), "tenon")
}

// TestE2EBuildRefuses checks bad input of build: one line that names the object
// and the reason, the right exit status, nothing left behind.
func TestE2EBuildRefuses(t *testing.T) {
	good := image(t, nil)
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := string(must(os.ReadFile(probeRecipe)))
	truncated := t.TempDir()
	if err := os.CopyFS(truncated, os.DirFS(strings.TrimPrefix(good, "oci:"))); err != nil {
		t.Fatal(err)
	}
	flipped := t.TempDir()
	if err := os.CopyFS(flipped, os.DirFS(truncated)); err != nil {
		t.Fatal(err)
	}
	layer := largest(t, filepath.Join(truncated, "blobs/sha256"))
	if err := os.Truncate(layer, 100_000); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(flipped, "blobs/sha256", filepath.Base(layer)))
	empty := t.TempDir() // a PATH without a compiler
	for _, tool := range []string{"make", "ld", "flex", "bison", "bc", "zstd", "perl", "xz"} {
		if err := os.Symlink(must(exec.LookPath(tool)), filepath.Join(empty, tool)); err != nil {
			t.Fatal(err)
		}
	}
	noConfig := image(t, func(c *v1.Config) { c.Entrypoint = nil })

	for _, c := range []struct {
		name string
		args []string
		env  string
		code int
		want string
	}{
		{"unknown image", []string{"oci:" + dir + "/missing"}, "", 1, "no such image"},
		{"unknown registry", []string{"127.0.0.1:1/no/such:image"}, "", 1, "connection refused"},
		{"malformed reference", []string{"UPPER/case"}, "", 1, "UPPER/case"},
		{"wrong platform", []string{"--platform", "linux/arm64", good}, "", 2, "linux/arm64"},
		{"truncated layer", []string{"-r", probeRecipe, "oci:" + truncated}, "", 1, filepath.Base(layer)},
		{"digest mismatch", []string{"-r", probeRecipe, "oci:" + flipped}, "", 1, filepath.Base(layer)},
		{"missing compiler", []string{"-r", probeRecipe, good}, "PATH=" + empty, 1, "missing build tools: gcc"},
		{"cache in a folder that make cannot work in", []string{"-r", probeRecipe, "--cache-dir", dir + "/a b", good}, "", 1, "spaces"},
		{"no kernel source", []string{"-r", probeRecipe, "--kernel-source", "debian:9.9", good}, "", 1, "linux-source-9.9"},
		{"recipe with an unknown key", []string{"-r", write("key.toml", base+"colour = \"red\"\n"), good}, "", 1, "key.toml:19: unknown key"},
		{"unknown recipe", []string{"-r", "postgres", good}, "", 1, `unknown recipe "postgres"`},
		{"unknown symbol", []string{"-r", write("symbol.toml", "config = [\n  \"FUTEX=y\",\n  \"NO_SUCH_SYMBOL=y\",\n]\n"+base), good}, "", 1, "symbol.toml:3: NO_SUCH_SYMBOL=y"},
		{"dropped symbol", []string{"-r", write("dropped.toml", "config = [\"BTRFS_FS=y\"]\n"+base), good}, "", 1, "dropped.toml:1: BTRFS_FS=y was dropped: depends on BLOCK"},
		{"conflict", []string{"-r", write("conflict.toml", "config = [\"MODULES=y\"]\n"+base), good}, "", 1, "sealed.config"},
		{"unknown fragment", []string{"-r", write("fragment.toml", "fragments = [\"bluetooth\"]\n"+base), good}, "", 1, "bluetooth"},
		{"nothing to run", []string{"-r", probeRecipe, noConfig}, "", 1, "neither an entrypoint nor a command"},
		{"no recipe fits", []string{"oci:" + required(t, "TENON_REDIS_IMAGE"), "-r", "./missing.toml"}, "", 1, "missing.toml"},
		{"output is something else", []string{"-r", probeRecipe, "-o", dir, good}, "", 1, "exists and is not a bundle"},
		{"output's folder is missing", []string{"-r", probeRecipe, "-o", dir + "/no/where", good}, "", 1, "no such file"},
		{"image larger than the limit", []string{"-r", probeRecipe, "--max-size", "1MiB", good}, "", 1, "more bytes than the limit allows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			work := t.TempDir()
			cmd := exec.CommandContext(t.Context(), tenon(t), append([]string{"build"}, absolute(c.args)...)...)
			cmd.Dir = work
			cmd.Env = os.Environ()
			if c.env != "" {
				cmd.Env = append(cmd.Env, c.env)
			}
			o := execute(cmd)
			if o.code != c.code || !strings.Contains(o.stderr, c.want) || strings.Count(o.stderr, "tenon: error: ") != 1 || o.stdout != "" {
				t.Errorf("want status %d and one line with %q: %s", c.code, c.want, o)
			}
			if left := must(os.ReadDir(work)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			t.Log(strings.TrimSpace(o.stderr))
		})
	}
}

// absolute makes the recipe's path one that holds in another folder.
func absolute(args []string) []string {
	out := append([]string(nil), args...)
	for i, a := range out {
		if a == probeRecipe {
			out[i] = must(filepath.Abs(a))
		}
	}
	return out
}

func largest(t *testing.T, dir string) string {
	t.Helper()
	var path string
	var size int64
	for _, e := range must(os.ReadDir(dir)) {
		if info := must(e.Info()); info.Size() > size {
			path, size = filepath.Join(dir, e.Name()), info.Size()
		}
	}
	return path
}

func flip(t *testing.T, path string) {
	t.Helper()
	data := must(os.ReadFile(path))
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestE2EDiskFull builds with a cache on small disks, so that it fills up at
// different stages.
func TestE2EDiskFull(t *testing.T) {
	img := image(t, nil, probeFiles...)
	for stage, size := range map[string]string{"reading the image": "1M", "unpacking the source": "200M", "compiling": "24M"} {
		t.Run(stage, func(t *testing.T) {
			disk := t.TempDir()
			if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size="+size); err != nil {
				t.Fatalf("mounting a tmpfs (needs root): %v", err)
			}
			defer func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }()
			if stage == "compiling" {
				linkSource(t, disk)
			}
			out := filepath.Join(t.TempDir(), "out.tenon")
			o := command(t, "build", "-r", probeRecipe, "--cache-dir", disk, "-o", out, img)
			if o.code != 1 || !strings.Contains(o.stderr, "no space left on device") || !strings.Contains(o.stderr, "hint: make room") {
				t.Error(o)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("there is an output")
			}
			for _, pattern := range []string{"tmp/*", "objects/*/work", "kernel/*"} {
				if left := must(filepath.Glob(filepath.Join(disk, pattern))); len(left) > 0 {
					t.Errorf("left in the cache: %v", left)
				}
			}
		})
	}
}

// TestE2EKilled ends builds half-way while the kernel is linked, and checks
// that the next one makes the right thing and that nothing stays behind.
func TestE2EKilled(t *testing.T) {
	probeBundle(t) // so that the objects are there
	img := newImage(t)
	kernels := filepath.Join(sharedCache(), "kernel")
	before := names(t, kernels)
	_, undisturbed := build(t, "-r", probeRecipe, "--name", "killed", img)
	for name := range names(t, kernels) {
		if !before[name] { // forget it, so that it is made again
			if err := os.RemoveAll(filepath.Join(kernels, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	rounds := 1
	if soak() {
		rounds = 20
	}
	for round := range 3 * rounds {
		s := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL}[round%3]
		t.Run(unix.SignalName(s), func(t *testing.T) {
			dir := t.TempDir()
			var stderr running
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, tenon(t), "build", "-r", probeRecipe, "--name", "killed", "-o", filepath.Join(dir, "out.tenon"), img)
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for !strings.Contains(stderr.String(), "building kernel") && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(2*time.Second + time.Duration(round)*100*time.Millisecond)
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatalf("the build was over before it could be ended: %v", err)
			}
			_ = cmd.Wait()
			if s != syscall.SIGKILL && (cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "tenon: error: interrupted")) {
				t.Errorf("exit status %d: %s", cmd.ProcessState.ExitCode(), stderr.String())
			}
			if left := must(os.ReadDir(dir)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	path, digest := build(t, "-r", probeRecipe, "--name", "killed", img)
	if digest != undisturbed {
		t.Errorf("digests differ: %s after kills, %s without", digest, undisturbed)
	}
	for _, pattern := range []string{"tmp/*", "objects/*/work"} {
		if left := must(filepath.Glob(filepath.Join(sharedCache(), pattern))); len(left) > 0 {
			t.Errorf("left in the cache: %v", left)
		}
	}
	if o := run(t, path); o.code != 0 {
		t.Error(o)
	}
}

// newImage is the probe's image with contents that no cache has seen.
func newImage(t *testing.T) string {
	t.Helper()
	return image(t, nil, append(probeFiles, file{tar.Header{Name: "now", Mode: 0o644}, []byte(time.Now().String())})...)
}

func names(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, e := range must(os.ReadDir(dir)) {
		found[e.Name()] = true
	}
	return found
}

// TestE2EAtOnce runs the same build twice at once.
func TestE2EAtOnce(t *testing.T) {
	img := newImage(t)
	digests := make(chan string)
	for range 2 {
		go func() {
			out, err := exec.Command(tenon(t), "build", "-r", probeRecipe, "-o", filepath.Join(t.TempDir(), "out.tenon"), img).Output()
			digests <- fmt.Sprint(strings.TrimSpace(string(out)), err)
		}()
	}
	one, two := <-digests, <-digests
	if one != two || !strings.HasPrefix(one, "sha256:") {
		t.Errorf("%s, %s", one, two)
	}
}

// TestE2EOthersTools reads what we write with tools that others wrote.
func TestE2EOthersTools(t *testing.T) {
	ref, digest := build(t, "--detached", "-r", probeRecipe, "--name", "probe", image(t, nil, probeFiles...))

	t.Run("skopeo copies a bundle", func(t *testing.T) {
		dir := t.TempDir()
		for _, copied := range []string{"oci-archive:" + dir + "/copy.tar", "oci:" + dir + "/copy"} {
			if o := execute(exec.Command("skopeo", "copy", "-q", "oci:"+ref, copied)); o.code != 0 {
				t.Fatal(o)
			}
			o := command(t, "inspect", "--format", "json", copied)
			if o.code != 0 || !strings.Contains(o.stdout, digest) {
				t.Errorf("%s: want digest %s: %s", copied, digest, o)
			}
		}
		if o := run(t, dir+"/copy"); o.code != 0 {
			t.Error(o)
		}
	})

	archive := filepath.Join(t.TempDir(), "initramfs.cpio")
	if o := execute(exec.Command("zstd", "-qd", layerFile(t, ref, false), "-o", archive)); o.code != 0 {
		t.Fatal(o)
	}
	want := map[string]string{ // name: type, permissions, links, owner
		".tenon/init": "-rwxr-xr-x 1 0 0", "bin": "drwxr-xr-x 1 0 0", "bin/probe": "-rwxr-xr-x 1 0 0",
		"dev/console": "crw------- 1 0 0", "kept": "-rwsr-xr-x 2 12 34", "linked": "-rwsr-xr-x 2 12 34", "left-out": "drwxr-xr-x 1 0 0",
	}
	for name, list := range map[string]string{
		"GNU cpio": "cpio -itv --quiet -n <\"$0\"",
		"bsdtar":   "bsdtar --numeric-owner -tvf \"$0\"",
	} {
		t.Run(name, func(t *testing.T) {
			o := execute(exec.Command("sh", "-c", list, archive))
			if o.code != 0 {
				t.Fatal(o)
			}
			got := map[string]string{}
			for line := range strings.Lines(o.stdout) {
				line, _, _ = strings.Cut(line, " link to ") // bsdtar's word for a hard link
				f := strings.Fields(line)
				got[f[len(f)-1]] = strings.Join(f[:4], " ")
			}
			for file, attributes := range want {
				if got[file] != attributes {
					t.Errorf("%s: %s, want %s", file, got[file], attributes)
				}
			}
			if !strings.Contains(o.stdout, "5, ") && !strings.Contains(o.stdout, "5,1") {
				t.Errorf("no device number of /dev/console:\n%s", o.stdout)
			}
		})
	}
}
