// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package builder_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/diff"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// TestE2EFidelity builds nginx's image, in which ping has a capability, and wants
// it in the bundle.
func TestE2EFidelity(t *testing.T) {
	reference := "oci:" + e2e.Required(t, "TENON_NGINX_IMAGE")
	bundle, _ := e2e.Build(t, reference)
	o := e2e.Tenon(t, "inspect", "--format", "json", bundle)
	var i struct{ Fidelity fidelity.Report }
	if err := json.Unmarshal([]byte(o.Stdout), &i); err != nil {
		t.Fatalf("%v: %s", err, o)
	}
	ping := fidelity.Capability{Path: "usr/bin/ping", Capabilities: "cap_net_raw=ep"}
	f := i.Fidelity
	if f.Xattrs.Count != 1 || !slices.Equal(f.Xattrs.Capabilities, []fidelity.Capability{ping}) || len(f.Changed) != 0 || !slices.Contains(f.Added, ".tenon/xattrs") {
		t.Errorf("fidelity %+v", f)
	}
	if o := e2e.Tenon(t, "inspect", bundle); !strings.Contains(o.Stdout, "usr/bin/ping cap_net_raw=ep") {
		t.Errorf("as text: %s", o)
	}

	// Against a bundle that has other files altogether, ping is one that goes.
	o = e2e.Tenon(t, "diff", "--format", "json", bundle, e2e.Probe(t))
	var r diff.Report
	if err := json.Unmarshal([]byte(o.Stdout), &r); err != nil || o.Code != 1 {
		t.Fatalf("%v: %.2000s", err, o)
	}
	at := slices.IndexFunc(r.Files, func(c diff.FileChange) bool { return c.Path == ping.Path })
	if at < 0 || !slices.Equal(r.Files[at].What, []string{"capabilities"}) || r.Files[at].A.Capabilities != ping.Capabilities {
		t.Errorf("diff: %+v", r.Files[max(at, 0)])
	}
}

// TestE2ERootfs compares the initramfs of nginx's image with its only layer, as
// bsdtar and cpio see them.
func TestE2ERootfs(t *testing.T) {
	image := e2e.Required(t, "TENON_NGINX_IMAGE")
	dir := t.TempDir()
	o := e2e.Tenon(t, "rootfs", "oci:"+image, "-o", filepath.Join(dir, "x.cpio"))
	if o.Code != 1 || !strings.Contains(o.Stderr, `"usr/bin/ping": not for an initramfs: extended attribute security.capability`) || !strings.Contains(o.Stderr, "--allow-drop") {
		t.Errorf("without a waiver: %s", o)
	}
	for _, name := range []string{"x.cpio", "x.cpio.zst"} {
		if o := e2e.Tenon(t, "rootfs", "oci:"+image, "-o", filepath.Join(dir, name), "--allow-drop", "usr/bin/ping"); o.Code != 0 {
			t.Fatal(o)
		}
		got, want := listed(t, filepath.Join(dir, name)), listed(t, e2e.Largest(t, filepath.Join(image, "blobs/sha256")))
		if !slices.Equal(got, want) || len(got) < 1000 {
			t.Errorf("%s: %d entries, the layer has %d; first difference %s", name, len(got), len(want), firstDifference(got, want))
		}
	}
	archive := filepath.Join(dir, "x.cpio")
	names := strings.Fields(string(e2e.Must(exec.Command("sh", "-c", `cpio -it --quiet <"$1"`, "sh", archive).Output())))
	if slices.Sort(names); len(names) != len(listed(t, archive)) || !slices.Contains(names, "usr/bin/ping") {
		t.Errorf("cpio sees %d names", len(names))
	}
}

// listed lists an archive: type and mode, owner, size or device, time,
// name and target of each entry, sorted.
func listed(t *testing.T, archive string) []string {
	t.Helper()
	cmd := exec.Command("bsdtar", "--numeric-owner", "-tvf", archive)
	cmd.Env = append(cmd.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", archive, err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		f = slices.Delete(f, 1, 2) // the number of links, which a layer does not say
		if f[0][0] == 'l' {
			f[3] = "0" // an initramfs says how long the target is
		}
		i := 7
		f[i] = strings.TrimSuffix(strings.TrimPrefix(f[i], "./"), "/")
		if f[i] == "" {
			f[i] = "." // the root
		}
		// Which name of several is the first one is the archive's own affair.
		if len(f) > i+3 && f[i+1] == "link" {
			f = append([]string{"linked"}, f[i])
		}
		lines = append(lines, strings.Join(f, " "))
	}
	slices.Sort(lines)
	return lines
}

func firstDifference(a, b []string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[i] + " and " + b[i]
		}
	}
	return "the number of them"
}

// insideNginx is what the image of TestE2ECapabilities runs: the capabilities of
// all files, one of them at work for a user who has none, and whom nginx runs as.
const insideNginx = `getcap -r /
setpriv --reuid=www-data --regid=www-data --clear-groups ping -c 1 -W 5 127.0.0.1
nginx
for i in $(seq 100); do # the workers start when nginx has returned
	grep -qs '^Uid:.33' /proc/[0-9]*/status && break
	sleep 0.1
done
for p in /proc/[0-9]*; do
	read -r comm <$p/comm && test "$comm" = nginx && grep ^Uid: $p/status
done`

// TestE2ECapabilities boots nginx's image, and wants inside what getcap says of
// its layer here.
func TestE2ECapabilities(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	for _, args := range [][]string{
		{"cp", "-r", e2e.Required(t, "TENON_NGINX_IMAGE"), image},
		{"umoci", "config", "--image", image + ":latest", "--config.entrypoint", "sh", "--config.cmd", "-c", "--config.cmd", insideNginx},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	tree := t.TempDir()
	e2e.Must(exec.Command("tar", "-C", tree, "--xattrs", "--xattrs-include=*", "-xpf", e2e.Largest(t, filepath.Join(image, "blobs/sha256"))).Output())
	want := strings.ReplaceAll(string(e2e.Must(exec.Command("getcap", "-r", tree).Output())), tree+"/", "/")

	bundle, _ := e2e.Build(t, "--detached", "-r", "nginx", "oci:"+image)
	o := e2e.Run(t, bundle)
	got := strings.ReplaceAll(o.Stdout, "\r\n", "\n")
	if want != "/usr/bin/ping cap_net_raw=ep\n" || !strings.HasPrefix(got, want) || !strings.Contains(got, " 0% packet loss") {
		t.Errorf("the layer has %q, inside: %s", want, o)
	}
	for _, uid := range []string{"0", "33"} { // root listens, www-data serves
		if line := "Uid:" + strings.Repeat("\t"+uid, 4) + "\n"; !strings.Contains(got, line) {
			t.Errorf("no process has %q: %s", line, o)
		}
	}
}
