// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenon-build/tenon/loader/control"
)

// monitor is a client of QMP, see docs/interop/qmp-spec in QEMU. No library is used:
// digitalocean/go-qemu opens a socket by its name, and ours has none.
type monitor struct {
	conn *os.File
	gone chan struct{} // closed when nothing more comes
	last atomic.Int64  // id of a command

	mu      sync.Mutex
	waiting map[string]chan answer // by the id of a command, or greeting
	greeted <-chan answer
}

// answer is one line of QEMU's. One that has none of these is an event, which nobody here
// waits for.
type answer struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       string          `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

// maxLine is the longest line, in bytes. Of 288 CPUs, QEMU writes about 50,000.
const maxLine = 1 << 20

const greeting = "greeting"

// newMonitor makes a client on a socket, which it reads until that ends.
func newMonitor(conn *os.File) *monitor {
	m := &monitor{conn: conn, gone: make(chan struct{}), waiting: map[string]chan answer{}}
	m.greeted = m.expect(greeting)
	go m.read()
	return m
}

func (m *monitor) read() {
	defer close(m.gone)
	lines := bufio.NewScanner(m.conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var a answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			return
		}
		key := a.ID
		if a.Greeting != nil {
			key = greeting
		}
		m.mu.Lock()
		if c := m.waiting[key]; c != nil {
			c <- a
			delete(m.waiting, key)
		}
		m.mu.Unlock()
	}
}

// expect makes room for one answer.
func (m *monitor) expect(key string) <-chan answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := make(chan answer, 1)
	m.waiting[key] = c
	return c
}

// receive waits for an answer that was expected.
func (m *monitor) receive(ctx context.Context, c <-chan answer) (answer, error) {
	select {
	case a := <-c:
		return a, nil
	case <-m.gone:
		return answer{}, errors.New("QEMU has closed its monitor")
	case <-ctx.Done():
		return answer{}, fmt.Errorf("QEMU does not answer: %w", context.Cause(ctx))
	}
}

// greet takes QEMU's greeting, after which it takes commands.
func (m *monitor) greet(ctx context.Context) error {
	if _, err := m.receive(ctx, m.greeted); err != nil {
		return err
	}
	return m.execute(ctx, "qmp_capabilities", nil, nil)
}

// execute has QEMU do one command, and decodes what it returns, unless result is nil.
func (m *monitor) execute(ctx context.Context, command string, arguments map[string]any, result any) error {
	a, err := m.roundTrip(ctx, command, arguments)
	switch {
	case err != nil:
	case a.Error != nil:
		err = errors.New(control.Line(a.Error.Desc))
	case result != nil:
		err = json.Unmarshal(a.Return, result)
	}
	if err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	return nil
}

func (m *monitor) roundTrip(ctx context.Context, command string, arguments map[string]any) (answer, error) {
	id := strconv.FormatInt(m.last.Add(1), 10)
	line, err := json.Marshal(struct {
		Execute   string         `json:"execute"`
		Arguments map[string]any `json:"arguments,omitempty"`
		ID        string         `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return answer{}, err
	}
	c := m.expect(id)
	if err := m.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return answer{}, err
	}
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		return answer{}, err
	}
	return m.receive(ctx, c)
}

// sendTimeout is how long QEMU may leave a command unread.
const sendTimeout = 2 * time.Second
