// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// fakeQEMU answers each command with the lines that reply returns, where ID stands for
// the command's id.
func fakeQEMU(t *testing.T, first string, reply func(command string) string) *monitor {
	t.Helper()
	var ours *os.File
	var i instance
	if _, err := i.socket(&ours); err != nil {
		t.Fatal(err)
	}
	theirs := i.files[0]
	t.Cleanup(func() { ours.Close() })
	go func() {
		defer theirs.Close()
		_, _ = theirs.WriteString(first)
		for lines := bufio.NewScanner(theirs); lines.Scan(); {
			var c struct {
				Execute, ID string
			}
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				t.Error(err)
			}
			answer := reply(c.Execute)
			if answer == "" {
				return
			}
			_, _ = theirs.WriteString(strings.ReplaceAll(answer, "ID", c.ID))
		}
	}()
	return newMonitor(ours)
}

const hello = `{"QMP": {"version": {}, "capabilities": ["oob"]}}` + "\n"

func TestMonitor(t *testing.T) {
	m := fakeQEMU(t, hello, func(command string) string {
		switch command {
		case "qmp_capabilities":
			return `{"return": {}, "id": "ID"}` + "\n"
		case "query":
			return `{"event": "RESUME", "data": {"path": 7}}` + "\n" + `{"return": "late", "id": "0"}` + "\n" + `{"return": [1, 2], "id": "ID"}` + "\n"
		case "quit":
			return ""
		}
		return `{"error": {"class": "CommandNotFound", "desc": "no\nsuch"}, "id": "ID"}` + "\n"
	})
	ctx := t.Context()
	if err := m.greet(ctx); err != nil {
		t.Fatal(err)
	}
	var got []int
	if err := m.execute(ctx, "query", nil, &got); err != nil || len(got) != 2 {
		t.Errorf("query: %v, %v", got, err)
	}
	var wrong string
	if err := m.execute(ctx, "query", nil, &wrong); err == nil {
		t.Error("an array became a string")
	}
	if err := m.execute(ctx, "nonsense", nil, nil); err == nil || err.Error() != "QMP nonsense: no; such" {
		t.Errorf("nonsense: %v", err)
	}
	for range 2 { // it ends; it has ended
		if err := m.execute(ctx, "quit", nil, nil); err == nil {
			t.Error("a command that nobody answers succeeded")
		}
	}
}

func TestMonitorIsLimited(t *testing.T) {
	for name, first := range map[string]string{
		"nothing":      "",
		"no JSON":      "hello\n",
		"a long line":  `{"QMP": "` + strings.Repeat("x", maxLine),
		"a wrong type": `{"id": 7}` + "\n" + hello,
	} {
		m := fakeQEMU(t, first, func(string) string { return "" })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := m.greet(ctx); err == nil {
			t.Errorf("%s: taken for QEMU", name)
		}
		cancel()
	}
}
