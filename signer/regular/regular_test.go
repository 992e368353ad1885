// SPDX-License-Identifier: Apache-2.0

package regular

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	t.Chdir(t.TempDir()) // a socket's path must be short
	listener, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = errors.Join(os.WriteFile("file", []byte("content"), 0o644), os.Symlink("file", "link"), os.Mkdir("dir", 0o755), unix.Mkfifo("fifo", 0o644),
		os.Symlink("fifo", "to-fifo"), os.Symlink("/dev/null", "device"), os.Symlink("../..", "out"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for form, open := range map[string]func(string) (fs.File, error){
		"path": func(name string) (fs.File, error) { return Open(name) },
		"root": FS{root}.Open,
	} {
		for name, want := range map[string]error{
			"file": nil, "link": nil, "missing": fs.ErrNotExist, "dir": ErrNotRegular, "fifo": ErrNotRegular, "to-fifo": ErrNotRegular, "socket": ErrNotRegular, "device": ErrNotRegular,
		} {
			f, err := open(name)
			if form == "root" && name == "device" {
				want = err // leads outside
			}
			if err == nil {
				data, _ := io.ReadAll(f)
				if string(data) != "content" || f.Close() != nil {
					t.Errorf("%s %s: %q", form, name, data)
				}
			}
			var path *fs.PathError
			if !errors.Is(err, want) || err != nil && (!errors.As(err, &path) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%s %s: got %v, want %v", form, name, err, want)
			}
		}
	}
	for _, name := range []string{"out/etc", "../x", "/etc/passwd", "device"} {
		if _, err := (FS{root}).Open(name); err == nil || !strings.Contains(err.Error(), "escapes") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
