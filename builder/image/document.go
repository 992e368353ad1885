// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/tenon-build/tenon/builder/limit"
)

// checkDocument says whether a JSON document is one to decode: it has at most most bytes and
// limit.ImageValues values.
func checkDocument(data []byte, most int) error {
	if len(data) > most {
		return fmt.Errorf("larger than %d bytes", most)
	}
	if values := countValues(data); values > limit.ImageValues {
		return fmt.Errorf("more than %d values", limit.ImageValues)
	}
	return nil
}

// countValues counts what a JSON document has at most of values: one after each comma, colon and
// opening bracket. It holds nothing in memory, as decoding would.
func countValues(data []byte) int {
	n, quoted := 1, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ':' || c == '{' || c == '['):
			n++
		}
	}
	return n
}

// readDocument reads a JSON document whole.
func readDocument(fsys fs.FS, file string, most int) ([]byte, error) {
	f, err := fsys.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data := bytes.NewBuffer(make([]byte, 0, min(info.Size(), int64(most))+bytes.MinRead)) // it does not grow
	_, err = data.ReadFrom(io.LimitReader(f, int64(most)+1))
	if err == nil {
		err = checkDocument(data.Bytes(), most)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return data.Bytes(), nil
}

func readJSON(fsys fs.FS, file string, into any) error {
	data, err := readDocument(fsys, file, limit.ImageManifest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// modest refuses manifests of a registry that are beyond their limit. The library holds them in
// memory before anyone sees them.
type modest struct{ next http.RoundTripper }

func (m modest) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := m.next.RoundTrip(r)
	if err == nil && strings.Contains(r.URL.Path, "/manifests/") {
		resp.Body = &modestBody{resp.Body, limit.ImageManifest}
	}
	return resp, err
}

type modestBody struct {
	io.ReadCloser
	left int
}

func (b *modestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("manifest: larger than %d bytes", limit.ImageManifest)
	}
	return n, err
}
