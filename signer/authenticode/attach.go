// SPDX-License-Identifier: Apache-2.0

package authenticode

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/tenon-build/tenon/signer/pkcs7"
)

// Attach writes the image with these signatures, PKCS#7 in DER, in place of its
// own, in this order: the kernel looks at the first alone. Without any it writes
// the image unsigned. CheckSum, which no signature covers, is made new, so that
// the same image and signatures give the same bytes.
func (i *Image) Attach(w io.Writer, signatures ...[]byte) error {
	if err := i.attach(w, signatures); err != nil {
		return fmt.Errorf("attaching signatures: %w", err)
	}
	return nil
}

func (i *Image) attach(w io.Writer, signatures [][]byte) error {
	table, err := table(signatures)
	if err != nil {
		return err
	}
	if len(table) > maxTable {
		return fmt.Errorf("the certificate table is larger than %d bytes", maxTable)
	}
	headers, err := i.read(0, i.headers)
	if err != nil {
		return err
	}
	entry := headers[i.certificate:][:directorySize]
	clear(entry)
	if len(table) > 0 {
		binary.LittleEndian.PutUint32(entry, uint32(i.end)) // Parse bounds both
		binary.LittleEndian.PutUint32(entry[4:], uint32(len(table)))
	}
	sum := headers[i.checksum:][:4]
	clear(sum)
	var c checksum
	body := func(f func([]byte) error) error {
		return i.each(context.Background(), span{i.headers, i.end}, make([]byte, chunk), f)
	}
	c.write(headers)
	if err := body(func(b []byte) error { c.write(b); return nil }); err != nil {
		return err
	}
	c.write(table)
	binary.LittleEndian.PutUint32(sum, c.sum(i.end+int64(len(table))))

	write := func(b []byte) error { _, err := w.Write(b); return err }
	if err := write(headers); err != nil {
		return err
	}
	if err := body(write); err != nil {
		return err
	}
	return write(table)
}

// table makes the certificate table. Each entry begins at a multiple of 8; its
// length does not count the zeros behind it, the table's does.
func table(signatures [][]byte) ([]byte, error) {
	if len(signatures) > maxCertificates {
		return nil, fmt.Errorf("more than %d signatures", maxCertificates)
	}
	var b bytes.Buffer
	for n, s := range signatures {
		if len(s) == 0 || len(s) > pkcs7.MaxSize {
			return nil, fmt.Errorf("signature %d has %d bytes, want 1 to %d", n+1, len(s), pkcs7.MaxSize)
		}
		header := binary.LittleEndian.AppendUint32(nil, uint32(8+len(s)))
		header = binary.LittleEndian.AppendUint16(header, Revision2)
		header = binary.LittleEndian.AppendUint16(header, TypePKCS7)
		b.Write(header)
		b.Write(s)
		b.Write(make([]byte, -len(s)&7))
	}
	return b.Bytes(), nil
}

// checksum is the algorithm of ImageHlp's CheckSumMappedFile: the ones'
// complement sum of all words of 16 bits, and the size. Here words of 32 bits are
// summed, as 2^32-1 is a multiple of 2^16-1.
type checksum struct {
	total uint64
	rest  []byte // fewer than 4 bytes
}

func (c *checksum) write(b []byte) {
	if len(c.rest) > 0 {
		n := min(4-len(c.rest), len(b))
		c.rest, b = append(c.rest, b[:n]...), b[n:]
		if len(c.rest) < 4 {
			return
		}
		c.total += uint64(binary.LittleEndian.Uint32(c.rest))
		c.rest = c.rest[:0]
	}
	for ; len(b) >= 4; b = b[4:] {
		c.total += uint64(binary.LittleEndian.Uint32(b))
	}
	c.rest = append(c.rest, b...)
}

func (c *checksum) sum(size int64) uint32 {
	c.write(make([]byte, -len(c.rest)&3))
	for c.total > 0xffff {
		c.total = c.total>>16 + c.total&0xffff
	}
	return uint32(c.total) + uint32(size)
}
