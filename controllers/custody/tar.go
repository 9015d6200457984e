package custody

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// An archive is a tar file of the simplest kind (POSIX ustar; GNU's form of the size for members of 8 GiB and more). It is written and read here, and not by archive/tar, because a verifier has to know every byte: a header that is not, byte for
// byte, the one that is written for its name, size and time has been changed.
const (
	blockSize = 512
	// maxOctal is the largest number in a field of twelve octal digits.
	maxOctal = 1<<33 - 1
	// maxMember bounds the name of a member, in bytes.
	maxMember = 99
)

// Where the fields of a header are (POSIX.1-2017, pax, "ustar Interchange Format").
const (
	nameAt, modeAt, ownerAt, groupAt, sizeAt, timeAt, sumAt, typeAt, magicAt, majorAt, minorAt = 0, 100, 108, 116, 124, 136, 148, 156, 257, 329, 337
)

// tarHeader is the header of a regular file.
func tarHeader(name string, size int64, modified time.Time) [blockSize]byte {
	var h [blockSize]byte
	copy(h[nameAt:], name)
	copy(h[modeAt:], "0000644")
	copy(h[ownerAt:], "0000000")
	copy(h[groupAt:], "0000000")
	copy(h[timeAt:], fmt.Sprintf("%011o", modified.Unix()))
	h[typeAt] = '0'
	copy(h[magicAt:], "ustar\x0000")
	if size <= maxOctal {
		copy(h[sizeAt:], fmt.Sprintf("%011o", size))
	} else {
		copy(h[magicAt:], "ustar  \x00")
		h[sizeAt] = 0x80
		binary.BigEndian.PutUint64(h[sizeAt+4:], uint64(size))
	}
	copy(h[majorAt:], "0000000")
	copy(h[minorAt:], "0000000")
	// The checksum is that of the header with spaces in the place of the checksum.
	sum := 8 * int(' ')
	for _, b := range h {
		sum += int(b)
	}
	copy(h[sumAt:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// padding is how many zero bytes follow a member.
func padding(size int64) int64 {
	return (blockSize - size%blockSize) % blockSize
}

// tarWriter writes an archive.
type tarWriter struct {
	w        io.Writer
	modified time.Time
	written  int64
}

func (t *tarWriter) write(data []byte) error {
	n, err := t.w.Write(data)
	t.written += int64(n)
	if err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return nil
}

// member writes a member. It fails when r does not have exactly size bytes.
func (t *tarWriter) member(name string, size int64, r io.Reader) error {
	if name == "" || len(name) > maxMember {
		return fmt.Errorf("writing the archive: %q cannot be the name of a member", name)
	}
	header := tarHeader(name, size, t.modified)
	if err := t.write(header[:]); err != nil {
		return err
	}
	n, err := io.Copy(t.w, io.LimitReader(r, size))
	t.written += n
	if err != nil {
		return fmt.Errorf("writing %s into the archive: %w", name, err)
	}
	if n < size {
		return fmt.Errorf("writing %s into the archive: it has %d bytes and not %d", name, n, size)
	}
	return t.write(make([]byte, padding(size)))
}

// end writes what ends an archive.
func (t *tarWriter) end() error {
	return t.write(make([]byte, 2*blockSize))
}

// member is a member of an archive that is being read.
type member struct {
	name     string
	size     int64
	modified time.Time
	// offset is where its header begins.
	offset int64
}

func (m *member) place() Place { return Place{Object: m.name, Offset: m.offset} }

// tarReader reads an archive strictly.
type tarReader struct {
	r      *bufio.Reader
	offset int64
}

func newTarReader(r io.Reader) *tarReader {
	return &tarReader{r: bufio.NewReaderSize(r, 16<<10)}
}

// Read reads on, and counts.
func (t *tarReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.offset += int64(n)
	return n, err
}

// block reads a block. An archive that ends before it is damaged.
func (t *tarReader) block(what string) ([blockSize]byte, error) {
	var b [blockSize]byte
	_, err := io.ReadFull(t, b[:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return b, damagef(Place{Offset: t.offset}, 0, "the archive ends here, where %s belongs", what)
	}
	return b, err
}

// next reads a header, or the end of the archive, after which the error is io.EOF. Every other error is a *DamageError, or one of reading.
func (t *tarReader) next() (*member, error) {
	offset := t.offset
	at := Place{Offset: offset}
	b, err := t.block("a file or the end mark")
	if err != nil {
		return nil, err
	}
	if b == ([blockSize]byte{}) {
		return nil, t.atEnd()
	}
	name, _, _ := bytes.Cut(b[nameAt:modeAt], []byte{0})
	size, sizeOK := tarNumber(b[sizeAt:timeAt])
	modified, timeOK := tarNumber(b[timeAt:sumAt])
	if !sizeOK || !timeOK || len(name) == 0 || len(name) > maxMember {
		return nil, damagef(at, 0, "this is not the header of a file of an evidence archive")
	}
	m := &member{name: string(name), size: size, modified: time.Unix(modified, 0).UTC(), offset: offset}
	if b != tarHeader(m.name, m.size, m.modified) {
		return nil, damagef(m.place(), 0, "the header of this file was changed, or not written by Cofferdam")
	}
	return m, nil
}

// atEnd checks the second block of the end mark, and that nothing follows.
func (t *tarReader) atEnd() error {
	at := Place{Offset: t.offset}
	b, err := t.block("the rest of the end mark")
	if err != nil {
		return err
	}
	if b != ([blockSize]byte{}) {
		return damagef(at, 0, "the end mark of the archive was changed")
	}
	at.Offset = t.offset
	_, err = t.r.ReadByte()
	switch {
	case err == nil:
		return damagef(at, 0, "there is something after the end of the archive")
	case errors.Is(err, io.EOF):
		return io.EOF
	}
	return err
}

// pad reads the padding of a member.
func (t *tarReader) pad(m *member) error {
	at := Place{Object: m.name, Offset: t.offset}
	b := make([]byte, padding(m.size))
	_, err := io.ReadFull(t, b)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return damagef(at, 0, "the archive ends within this file")
	case err != nil:
		return err
	case len(bytes.Trim(b, "\x00")) > 0:
		return damagef(at, 0, "the space after this file was changed")
	}
	return nil
}

// tarNumber reads a number. The header is compared as a whole afterwards, so nothing but its value matters here.
func tarNumber(field []byte) (int64, bool) {
	if field[0] == 0x80 {
		n := binary.BigEndian.Uint64(field[len(field)-8:])
		return int64(n), n <= 1<<62
	}
	n, err := strconv.ParseInt(strings.TrimRight(string(field), "\x00"), 8, 64)
	return n, err == nil && n >= 0
}
