// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestSendReceive(t *testing.T) {
	messages := []*Message{
		{Hello: &Hello{Version: Version, Release: "6.1"}},
		{Configure: &Configure{Hostname: "a", Env: map[string]string{"http_proxy": "x", "HTTP_PROXY": "y"}}},
		{Ready: &Ready{PID: 2, Uptime: 3}},
		{Health: &Health{Status: "healthy"}},
		{Heartbeat: &Heartbeat{Uptime: 4}},
		{Signal: &Signal{Number: 15}},
		{Resize: &Resize{CPUs: 2}},
		{Resized: &Resized{CPUs: 2, Error: "CPU 1 is not there"}},
		{Exit: &Exit{Code: 1}},
	}
	var wire bytes.Buffer
	conn := NewConn(&wire)
	for _, m := range messages {
		if err := conn.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range messages {
		got, err := conn.Receive()
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("got %+v, %v, want %+v", got, err, m)
		}
	}
	if _, err := conn.Receive(); err != io.EOF {
		t.Errorf("at the end: got %v, want io.EOF", err)
	}
}

func TestReceiveRefuses(t *testing.T) {
	tests := []struct {
		name, wire, want string
	}{
		{"cut within the length", "\x00\x00", "unexpected EOF"},
		{"cut after the length", "\x00\x00\x00\x05", "unexpected EOF"},
		{"cut within the body", "\x00\x00\x00\x05{", "unexpected EOF"},
		{"length 0", "\x00\x00\x00\x00", "frame of 0 bytes"},
		{"oversized", "\x00\x01\x00\x01" + strings.Repeat(" ", MaxFrame+1), "want 1 to 65536"},
		{"no field", string(frame(`{}`)), "0 messages"},
		{"null field", string(frame(`{"signal":null}`)), "0 messages"},
		{"two fields", string(frame(`{"signal":{"number":1},"configure":{}}`)), "2 messages"},
		{"field twice", string(frame(`{"signal":{"number":1},"signal":{"number":9}}`)), "occurs twice"},
		{"unknown field", string(frame(`{"configure":{"entrypoint":["sh"]}}`)), "unknown field"},
		{"another case", string(frame(`{"Signal":{"number":1}}`)), "unknown field"},
		{"two values", string(frame(`{"signal":{"number":1}}{}`)), "after the end"},
		{"resize to none", string(frame(`{"resize":{"cpus":0}}`)), "resize to 0 CPUs"},
		{"resize to too many", string(frame(`{"resize":{"cpus":8193}}`)), "resize to 8193 CPUs"},
		{"resized to none", string(frame(`{"resized":{}}`)), "resized to 0 CPUs"},
		{"resized with two lines", string(frame(`{"resized":{"cpus":1,"error":"a\nb"}}`)), "resized to 1 CPUs, error"},
		{"resize and its answer", string(frame(`{"resize":{"cpus":1},"resized":{"cpus":1}}`)), "2 messages"},
		{"not an object", string(frame(`7`)), "cannot unmarshal"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, err := NewConn(bytes.NewBufferString(test.wire)).Receive()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, %v, want %q", m, err, test.want)
			}
		})
	}
}

func TestSendRefuses(t *testing.T) {
	var wire bytes.Buffer
	for _, m := range []*Message{
		{},
		{Hello: &Hello{}, Ready: &Ready{}},
		{Exit: &Exit{Error: strings.Repeat("x", MaxFrame)}},
	} {
		if err := NewConn(&wire).Send(m); err == nil || wire.Len() > 0 {
			t.Errorf("%+v: sent %d bytes, error %v", m, wire.Len(), err)
		}
	}
}

// A deadline within a frame is not the end of the stream.
func TestReceiveKeepsError(t *testing.T) {
	late := errors.New("late")
	r := io.MultiReader(bytes.NewReader(frame(`{}`)[:5]), errReader{late})
	if _, err := NewConn(struct {
		io.Reader
		io.Writer
	}{r, nil}).Receive(); !errors.Is(err, late) {
		t.Errorf("got %v, want %v", err, late)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func FuzzReceive(f *testing.F) {
	f.Add(frame(`{"configure":{"hostname":"a","env":{"A":"b"}}}`))
	f.Add(frame(`{"signal":{"number":15}}`))
	f.Add(frame(`{"resized":{"cpus":1,"error":"x"}}`))
	f.Add([]byte("\xff\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		m, err := NewConn(bytes.NewBuffer(bytes.Clone(wire))).Receive()
		if err != nil {
			return
		}
		var again bytes.Buffer
		conn := NewConn(&again)
		if err := conn.Send(m); err != nil {
			if len(wire) < MaxFrame/6 { // escapes make an encoding longer
				t.Fatal(err)
			}
			return
		}
		if _, err := conn.Receive(); err != nil {
			t.Errorf("refused after encoding: %v", err)
		}
	})
}
