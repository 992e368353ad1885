// SPDX-License-Identifier: Apache-2.0

// Package authenticode digests, signs and verifies PE images: bzImages with an
// EFI stub, which are what kexec_file_load checks under lockdown.
//
// In: an image, read where it lies, and a key or a signature. Out: the digest of
// the image as if it were unsigned, a signature over a digest, who made one, and
// the image with other signatures. It follows "Windows Authenticode Portable
// Executable Signature Format" (2008) and "PE Format", and is narrower than
// both: it takes the images of which the kernel's crypto/asymmetric_keys and
// every other verifier digest the same bytes. Refused: images with bytes that no
// signature would cover (gaps between sections), sections that overlap, a
// certificate table that is not at the end, and sizes that are not a multiple of
// 8, as zeros put behind the end when signing would change what is signed.
//
// SHA-256 alone is used.
package authenticode

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// ErrInvalid says that an image is not one that this package takes.
var ErrInvalid = errors.New("invalid PE image")

const (
	maxHeaders      = 1 << 20 // SizeOfHeaders, in bytes
	maxSections     = 96      // as the Windows loader has it
	maxTable        = 1 << 20 // the certificate table, in bytes
	maxCertificates = 16      // in the table
)

// Sizes and offsets of "PE Format".
const (
	dosHeaderSize     = 64
	offsetPEHeader    = 0x3c // e_lfanew
	coffHeaderSize    = 24   // with the signature "PE\0\0"
	offsetChecksum    = 64   // in the optional header, of PE32 and PE32+
	offsetHeadersSize = 60
	directorySize     = 8
	sectionSize       = 40
	certificateIndex  = 4 // of the certificate table's entry in the data directories
)

// Certificate is one entry of the certificate table, a WIN_CERTIFICATE.
type Certificate struct {
	Revision uint16
	Type     uint16
	Data     []byte // of PKCS#7 without the zeros behind it, which some writers count
}

// Of a WIN_CERTIFICATE that holds PKCS#7.
const (
	Revision2 = 0x0200 // WIN_CERT_REVISION_2_0
	TypePKCS7 = 0x0002 // WIN_CERT_TYPE_PKCS_SIGNED_DATA
)

// Image is a PE image whose headers have been read and checked. The reader has
// to return the same bytes for as long as the image is in use.
type Image struct {
	Certificates []Certificate // in the order in which they stand

	r           io.ReaderAt
	end         int64 // of what is signed: where the certificate table begins, or would
	headers     int64 // SizeOfHeaders
	checksum    int64 // offset of CheckSum
	certificate int64 // offset of the certificate table's data directory
}

// Parse reads an image of size bytes. Errors about what it found wrap ErrInvalid.
func Parse(r io.ReaderAt, size int64) (*Image, error) {
	i := &Image{r: r, end: size}
	if size > math.MaxUint32-maxTable {
		return nil, fmt.Errorf("%w: larger than 4 GiB", ErrInvalid)
	}
	if size%8 != 0 {
		return nil, fmt.Errorf("%w: its size, %d bytes, is not a multiple of 8", ErrInvalid, size)
	}
	if err := i.parse(); err != nil {
		return nil, err
	}
	return i, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// read reads n bytes of what lies before the end.
func (i *Image) read(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > i.end || n > i.end-off {
		return nil, invalid("truncated: needs bytes %d to %d of %d", off, off+n, i.end)
	}
	b := make([]byte, n)
	if got, err := i.r.ReadAt(b, off); int64(got) < n {
		return nil, fmt.Errorf("reading the image: %w", err)
	}
	return b, nil
}

func (i *Image) parse() error {
	dos, err := i.read(0, dosHeaderSize)
	if err != nil {
		return err
	}
	if string(dos[:2]) != "MZ" {
		return invalid("no DOS header")
	}
	pe := int64(binary.LittleEndian.Uint32(dos[offsetPEHeader:]))
	if pe < dosHeaderSize {
		return invalid("the PE header overlaps the DOS header")
	}
	coff, err := i.read(pe, coffHeaderSize)
	if err != nil {
		return err
	}
	if string(coff[:4]) != "PE\x00\x00" {
		return invalid("no PE header")
	}
	sections := int64(binary.LittleEndian.Uint16(coff[6:]))
	optionalSize := int64(binary.LittleEndian.Uint16(coff[20:]))
	optional, err := i.read(pe+coffHeaderSize, optionalSize)
	if err != nil {
		return err
	}
	directories, err := i.parseOptional(pe+coffHeaderSize, optional)
	if err != nil {
		return err
	}
	if err := i.parseTable(optional[directories:]); err != nil {
		return err
	}
	return i.parseSections(pe+coffHeaderSize+optionalSize, sections)
}

// parseOptional reads the optional header at base, and returns where in it the
// data directories begin.
func (i *Image) parseOptional(base int64, h []byte) (directories int64, err error) {
	if len(h) < 2 {
		return 0, invalid("no optional header")
	}
	switch magic := binary.LittleEndian.Uint16(h); magic {
	case 0x10b: // PE32
		directories = 96
	case 0x20b: // PE32+
		directories = 112
	default:
		return 0, invalid("optional header of the unknown kind %#x", magic)
	}
	if int64(len(h)) < directories {
		return 0, invalid("the optional header is truncated")
	}
	// The kernel finds the section table behind the directories, others behind
	// the optional header: they have to be the same place.
	n := int64(binary.LittleEndian.Uint32(h[directories-4:]))
	if n <= certificateIndex || int64(len(h)) != directories+n*directorySize {
		return 0, invalid("%d data directories do not fill the optional header of %d bytes, or have no place for the certificate table", n, len(h))
	}
	i.checksum = base + offsetChecksum
	i.certificate = base + directories + certificateIndex*directorySize
	i.headers = int64(binary.LittleEndian.Uint32(h[offsetHeadersSize:]))
	return directories, nil
}

// parseTable reads the certificate table, which is left out of the image from
// here on.
func (i *Image) parseTable(directories []byte) error {
	entry := directories[certificateIndex*directorySize:]
	off, size := int64(binary.LittleEndian.Uint32(entry)), int64(binary.LittleEndian.Uint32(entry[4:]))
	if off == 0 && size == 0 {
		return nil
	}
	switch {
	case off%8 != 0 || off < i.certificate+directorySize:
		return invalid("the certificate table is at %d", off)
	case size == 0 || size > maxTable:
		return invalid("the certificate table has %d bytes, want 1 to %d", size, maxTable)
	case off+size != i.end:
		return invalid("the certificate table, bytes %d to %d, is not at the end, %d", off, off+size, i.end)
	}
	table, err := i.read(off, size)
	if err != nil {
		return err
	}
	i.end = off
	for len(table) > 0 {
		if len(i.Certificates) == maxCertificates {
			return invalid("more than %d certificates", maxCertificates)
		}
		if table, err = i.parseCertificate(table); err != nil {
			return err
		}
	}
	return nil
}

// parseCertificate reads one WIN_CERTIFICATE and returns what follows.
func (i *Image) parseCertificate(table []byte) ([]byte, error) {
	if len(table) < 8 {
		return nil, invalid("a certificate's header is truncated")
	}
	n := int64(binary.LittleEndian.Uint32(table))
	padded := (n + 7) &^ 7
	if n <= 8 || padded > int64(len(table)) {
		return nil, invalid("a certificate of %d bytes in a table that has %d left", n, len(table))
	}
	if len(bytes.Trim(table[n:padded], "\x00")) > 0 {
		return nil, invalid("bytes behind a certificate that are not zero")
	}
	c := Certificate{
		Revision: binary.LittleEndian.Uint16(table[4:]),
		Type:     binary.LittleEndian.Uint16(table[6:]),
		Data:     table[8:n:n],
	}
	if c.Type == TypePKCS7 {
		c.Data = trim(c.Data)
	}
	i.Certificates = append(i.Certificates, c)
	return table[padded:], nil
}

// trim cuts off the zeros behind a DER element that fill it up to a multiple of
// 8, as the kernel does.
func trim(data []byte) []byte {
	rest := cryptobyte.String(data)
	var der cryptobyte.String
	var tag asn1.Tag
	if rest.ReadAnyASN1Element(&der, &tag) && len(rest) < 8 && len(bytes.Trim(rest, "\x00")) == 0 {
		return der
	}
	return data
}

// parseSections checks that the headers and the sections follow one another
// without gaps and overlaps, so that their digest in the order of their place
// is that of all bytes up to the last.
func (i *Image) parseSections(base, n int64) error {
	if n < 1 || n > maxSections {
		return invalid("has %d sections, want 1 to %d", n, maxSections)
	}
	if i.headers > maxHeaders || i.headers > i.end || base+n*sectionSize > i.headers {
		return invalid("SizeOfHeaders is %d, the section table ends at %d, the image at %d", i.headers, base+n*sectionSize, i.end)
	}
	table, err := i.read(base, n*sectionSize)
	if err != nil {
		return err
	}
	type section struct{ start, size int64 }
	var sections []section
	for ; len(table) > 0; table = table[sectionSize:] {
		s := section{start: int64(binary.LittleEndian.Uint32(table[20:])), size: int64(binary.LittleEndian.Uint32(table[16:]))}
		if s.size > 0 { // others have no bytes in the file
			sections = append(sections, s)
		}
	}
	slices.SortFunc(sections, func(a, b section) int { return cmp.Compare(a.start, b.start) })
	end := i.headers
	for _, s := range sections {
		if s.start != end {
			return invalid("a section begins at %d where the one before it, or the headers, end at %d", s.start, end)
		}
		end += s.size
	}
	if end > i.end {
		return invalid("truncated: the sections end at %d, the image at %d", end, i.end)
	}
	return nil
}
