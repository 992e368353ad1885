// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/tenon-build/tenon/testdata/e2e"
)

// Package unpacks a package of another of Debian's suites, such as bookworm-backports, and
// returns the directory. It is kept beside the build cache, and the system is not touched.
func Package(t e2e.T, suite, name string) (dir string) {
	t.Helper()
	home := filepath.Join(e2e.Cache(), "debian", suite)
	dir = filepath.Join(home, name)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Join(home, "lists/partial"), 0o755); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(home, "tmp-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	// The mirror is the one that the system's own sources name.
	mirror, _, _ := strings.Cut(e2e.Tool(t, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm"), "\n")
	list := filepath.Join(home, "sources.list")
	e2e.WriteFile(t, list, []byte("deb "+mirror+" "+suite+" main\n"))
	apt := []string{"apt-get", "-q", "-o", "Dir::Etc::SourceList=" + list, "-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Dir::State::Lists=" + filepath.Join(home, "lists"), "-o", "APT::Sandbox::User=root"}
	e2e.Tool(t, append(apt, "update")...)
	download := e2e.Command(t, apt[0], append(apt[1:], "download", name+"/"+suite)...)
	download.Dir = tmp
	if o := e2e.Execute(download); o.Code != 0 {
		t.Fatal(o)
	}
	debs, err := filepath.Glob(tmp + "/*.deb")
	if err != nil || len(debs) != 1 {
		t.Fatalf("apt-get download %s: %q, %v", name, debs, err)
	}
	e2e.Tool(t, "dpkg", "-x", debs[0], tmp+"/unpacked")
	if err := os.Rename(tmp+"/unpacked", dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
