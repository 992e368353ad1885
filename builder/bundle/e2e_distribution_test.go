// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package bundle_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/testdata/e2e"
	"github.com/tenon-build/tenon/testdata/testbundle"
)

// TestE2EDistribution pushes to Debian's docker-registry, which has no referrers API, attaches
// there, and pulls.
func TestE2EDistribution(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	l := e2e.Must(net.Listen("tcp", "127.0.0.1:0"))
	host := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, host), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 300 {
		if conn, err := net.Dial("tcp", host); err == nil {
			conn.Close()
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	path, digest, err := testbundle.Write(t.Context(), t.TempDir(), nil, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	b := e2e.Must(bundle.Open(t.Context(), path))
	defer b.Close()
	signature := func(text string) bundle.Attachment {
		return bundle.Attachment{Type: bundle.StatementType, MediaType: bundle.PKCS7Type, Data: []byte(text)}
	}
	if err := b.Attach(t.Context(), signature("one"), bundle.Attachment{Type: "application/vnd.scanner+json", MediaType: "application/json", Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	ref := host + "/team/web:1.4"
	if where := e2e.Must(b.Push(t.Context(), ref, nil)); where != host+"/team/web@"+digest.String() {
		t.Error(where)
	}
	there := e2e.Must(bundle.Open(t.Context(), ref))
	defer there.Close()
	if err := there.Attach(t.Context(), signature("two")); err != nil {
		t.Fatal(err)
	}
	pulled := e2e.Must(bundle.Open(t.Context(), ref))
	defer pulled.Close()
	if n := len(pulled.Referrers()); n != 3 {
		t.Errorf("%d referrers", n)
	}
	if err := pulled.Save(t.Context(), t.TempDir()+"/copy", nil); err != nil {
		t.Error(err)
	}
}
