// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	if err != nil || fresh.end != 0 {
		t.Errorf("%v, %+v", err, fresh)
	}
}
