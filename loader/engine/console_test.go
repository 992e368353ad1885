// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// Whoever follows from the start, fast enough, has it all; whoever comes late has what
// is kept: at least one whole file.
func TestConsole(t *testing.T) {
	c, err := newConsole(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	c.size = 1000
	var all strings.Builder
	early := make(chan string)
	read, write := io.Pipe()
	go func() {
		got, _ := io.ReadAll(read)
		early <- string(got)
	}()
	go func() { write.CloseWithError(c.follow(t.Context(), write, true)) }()
	for i := range 500 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		if n, err := io.WriteString(c, line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	var late strings.Builder
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.follow(t.Context(), &late, true); err != io.EOF {
		t.Error(err)
	}
	if !strings.HasSuffix(all.String(), late.String()) || late.Len() < 1000 || late.Len() > 2000 {
		t.Errorf("%d bytes: %q", late.Len(), late.String())
	}
	if got := <-early; !strings.HasSuffix(all.String(), got[max(0, len(got)-1000):]) {
		t.Errorf("%q", got)
	}
	var kept []byte
	for _, name := range []string{consoleOld, consoleFile} {
		data, err := os.ReadFile(filepath.Join(c.dir, name))
		if err != nil {
			t.Error(err)
		}
		kept = append(kept, data...)
	}
	if string(kept) != late.String() {
		t.Errorf("%q", kept)
	}

	// Whoever goes on with it keeps that, and adds to it.
	again, err := newConsole(c.dir, true)
	if err != nil {
		t.Fatal(err)
	}
	again.size = 1000
	if _, err := io.WriteString(again, "later\n"); err != nil || again.Close() != nil {
		t.Error(err)
	}
	var both strings.Builder
	if err := again.follow(t.Context(), &both, true); err != io.EOF || both.String() != late.String()+"later\n" {
		t.Errorf("%v, %q", err, both.String())
	}
	fresh, err := newConsole(t.TempDir(), true) // nothing was kept
	if err != nil || fresh.end != 0 || fresh.kept() != 0 {
		t.Errorf("%v, %+v", err, fresh)
	}
}

// smallDisk is a directory with room for so many bytes.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", bytes)); err != nil {
		t.Skip(err) // that takes root
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill leaves no room in a directory, until the file that it returns is removed.
func fill(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, ".fill")
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return file
}

// While the disk is full, viewers see what is printed; afterwards it is kept again. What did
// not fit in memory meanwhile is missing, and the log says how much.
func TestConsoleFullDisk(t *testing.T) {
	const size = 8192
	for name, printed := range map[string]int{"fits in memory": size / 2, "does not": 5 * size} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t, 64<<10)
			c, err := newConsole(dir, false)
			if err != nil {
				t.Fatal(err)
			}
			c.size = size
			seen := &viewer{}
			go func() { _ = c.follow(t.Context(), seen, true) }()
			var all strings.Builder
			print := func(text string) {
				t.Helper()
				all.WriteString(text)
				if _, err := io.WriteString(c, text); err != nil {
					t.Fatal(err)
				}
				seen.expect(t, all.String())
			}
			print(strings.Repeat("before\n", 10))
			full := fill(t, dir)
			// The page that the log has already takes more of it.
			for i := 0; i < printed || c.lost == nil; i += 20 {
				print(fmt.Sprintf("%019d\n", i))
			}
			if !errors.Is(c.lost, unix.ENOSPC) {
				t.Fatalf("the disk is not full: %v", c.lost)
			}
			missing := int64(0)
			if len(c.waiting) > 0 {
				missing = c.end - int64(len(c.waiting)) - c.kept()
			}
			if (missing > 0) != (name == "does not") {
				t.Fatalf("%d bytes are missing", missing)
			}
			kept := all.String()[:c.kept()]
			if err := os.Remove(full); err != nil {
				t.Fatal(err)
			}
			waiting := string(c.waiting)
			print("after\n")
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			want := kept + waiting + "after\n"
			if missing > 0 {
				want = fmt.Sprintf("%s\n[mortise: %d bytes are missing: no space left on device]\n%safter\n", kept, missing, waiting)
			}
			var log []byte
			for _, file := range []string{consoleOld, consoleFile} {
				data, _ := os.ReadFile(filepath.Join(dir, file))
				log = append(log, data...)
			}
			if missing == 0 && string(log) != want || len(log) == 0 || !strings.HasSuffix(want, string(log)) {
				t.Errorf("kept are %d bytes: %.200q", len(log), log)
			}
			if missing > 0 && !strings.Contains(string(log), "bytes are missing") {
				t.Errorf("nothing is said of what is missing: %.200q", log)
			}
			// Whoever comes late reads the same, by offsets.
			var late strings.Builder
			if err := c.follow(t.Context(), &late, true); err != io.EOF || !strings.HasSuffix(all.String(), late.String()[max(0, late.Len()-size/2):]) {
				t.Errorf("%v, %.200q", err, late.String())
			}
		})
	}
}

// What waited for room is kept when there is some, also if nothing more is printed.
func TestConsoleQuietAfterFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := smallDisk(t, 16<<10)
		c, err := newConsole(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		full := fill(t, dir)
		if _, err := io.WriteString(c, "last words\n"); err != nil {
			t.Fatal(err)
		}
		log := func() string {
			data, err := os.ReadFile(filepath.Join(dir, consoleFile))
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
		time.Sleep(3 * tryAgain)
		if got := log(); got != "" {
			t.Fatalf("the disk is not full: %q", got)
		}
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * tryAgain)
		if got := log(); got != "last words\n" {
			t.Errorf("kept is %q", got)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What cannot be kept to the end is said.
func TestConsoleFullAtTheEnd(t *testing.T) {
	dir := smallDisk(t, 16<<10)
	c, err := newConsole(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, dir)
	text := strings.Repeat("x", 100)
	if n, err := io.WriteString(c, text); n != len(text) || err != nil {
		t.Error(n, err)
	}
	if err := c.Close(); !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), "the last 100 bytes that were printed were not kept: ") {
		t.Error(err)
	}
}

// What stands in the place of a log is not waited for.
func TestConsoleFIFO(t *testing.T) {
	for _, goOn := range []bool{false, true} {
		dir := t.TempDir()
		if err := unix.Mkfifo(filepath.Join(dir, consoleFile), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newConsole(dir, goOn); err == nil || !strings.HasSuffix(err.Error(), "console.log is not a regular file") {
			t.Error(err)
		}
	}
}

// viewer is somebody who looks on.
type viewer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (v *viewer) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.text.Write(p)
}

func (v *viewer) expect(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		v.mu.Lock()
		got := v.text.String()
		v.mu.Unlock()
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a viewer sees %d bytes of %d", len(got), len(want))
		}
	}
}
