// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// checkDocument says whether a JSON document is one to decode: it has at most most bytes and
// limit.ImageValues values.
func checkDocument(data []byte, most int) error {
	if len(data) > most {
		return fmt.Errorf("larger than %d bytes", most)
	}
	return strictjson.CheckValues(data, limit.ImageValues)
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
