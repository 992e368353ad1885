// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bytes"
	"fmt"
	"strings"
)

// raw is one block of a tar header that package tar does not write, with what
// follows it.
type raw struct {
	name, link string
	typ        byte
	mode       int
	uid        string // the field as it is; "0" where it is empty
	size       int    // where it is not that of the body
	old        []byte // put at byte 257, where a ustar header has its magic
	body       string
}

const ustar = "ustar\x0000"

func (r raw) bytes() []byte {
	h := make([]byte, 512)
	copy(h[:100], r.name)
	size := r.size
	if size == 0 {
		size = len(r.body)
	}
	for _, f := range []struct {
		at   int
		text string
	}{{100, fmt.Sprintf("%07o", r.mode)}, {108, "0000000"}, {116, "0000000"}, {124, fmt.Sprintf("%011o", size)}, {136, fmt.Sprintf("%011o", 1000)}} {
		copy(h[f.at:], f.text)
	}
	if r.uid != "" {
		copy(h[108:116], r.uid)
	}
	h[156] = r.typ
	copy(h[157:257], r.link)
	copy(h[257:], r.old)
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return append(h, padded(r.body)...)
}

func padded(body string) string { return body + strings.Repeat("\x00", -len(body)&511) }

// rawLayer is an archive of such headers.
func rawLayer(headers ...raw) Layer {
	var b bytes.Buffer
	for _, h := range headers {
		b.Write(h.bytes())
	}
	b.Write(make([]byte, 1024))
	return bytesLayer(b.Bytes())
}

// records are the body of an extended header: keys and values in turn.
func records(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		text := " " + pairs[i] + "=" + pairs[i+1] + "\n"
		n := len(text)
		for n != len(text)+len(fmt.Sprint(n)) {
			n = len(text) + len(fmt.Sprint(n))
		}
		fmt.Fprintf(&b, "%d%s", n, text)
	}
	return b.String()
}

// pax is an extended header of the next entry.
func pax(pairs ...string) raw {
	return raw{name: "PaxHeaders/x", typ: 'x', mode: 0o644, old: []byte(ustar), body: records(pairs...)}
}

func regular(name, body string) raw {
	return raw{name: name, typ: '0', mode: 0o644, old: []byte(ustar), body: body}
}
