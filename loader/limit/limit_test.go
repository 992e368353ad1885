// SPDX-License-Identifier: Apache-2.0

package limit_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/testdata/memory"
)

// most is how much memory a reader may take above the largest document.
const most = 64 << 20

// TestMemory holds the readers of what a guest says and of what is kept of an instance to their
// limits in bytes and entries, and prints what they take.
func TestMemory(t *testing.T) {
	frame := func(data []byte) error {
		var wire bytes.Buffer
		_ = binary.Write(&wire, binary.BigEndian, uint32(len(data)))
		wire.Write(data)
		_, err := control.NewConn(struct {
			io.Reader
			io.Writer
		}{&wire, io.Discard}).Receive()
		return err
	}
	record := func(data []byte) error {
		dir := t.TempDir()
		if err := os.Mkdir(dir+"/web", 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(dir+"/web/record.json", data, 0o600); err != nil {
			return err
		}
		_, err := (&instance.Store{Dir: dir}).Get("web")
		return err
	}
	for _, r := range []struct {
		name, head, tail string
		size             int
		read             func(data []byte) error
	}{
		{"control frame", `{"configure":{"env":[`, `]}}`, limit.Frame, frame},
		{"record", `{"version":1,"held":{"devices":[`, `]}}`, limit.Record, record},
	} {
		entries := func(n int) []byte { return []byte(r.head + strings.TrimSuffix(strings.Repeat(`"",`, n), ",") + r.tail) }
		for what, data := range map[string][]byte{
			"most entries": entries(r.size/16 - 16), "too many entries": entries(r.size/16 + 1), "too large": append(entries(1), bytes.Repeat([]byte(" "), r.size)...),
		} {
			var err error
			used := memory.Peak(func() { err = r.read(data) })
			t.Logf("%-14s %-16s %6d bytes read, %4d KiB taken: %.100s", r.name, what, len(data), used>>10, fmt.Sprint(err))
			if used > uint64(r.size)+most {
				t.Errorf("%s, %s: %d bytes", r.name, what, used)
			}
			want := map[string]string{"too many entries": "more than 4096 values", "too large": "65536"}[what]
			if err == nil || !strings.Contains(err.Error(), want) || want == "" && strings.Contains(err.Error(), " values") {
				t.Errorf("%s, %s: %v", r.name, what, err)
			}
		}
	}
}

func TestInstances(t *testing.T) {
	dir := t.TempDir()
	for i := range limit.Instances {
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprint("web-", i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := &instance.Store{Dir: dir}
	if names, err := s.Names(); err != nil || len(names) != limit.Instances {
		t.Errorf("%d, %v", len(names), err)
	}
	if err := os.Mkdir(dir+"/more", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Names(); err == nil || !strings.Contains(err.Error(), "more than 4096 instances") {
		t.Error(err)
	}
}
