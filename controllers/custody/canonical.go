package custody

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxLine bounds a line of the ledger, in bytes. An entry has about 5,000 characters at most, and a character has 4 bytes at most.
const maxLine = 64 << 10

const (
	sumField = `,"sum":"`
	sumBytes = 8
	// sumLength is the length of the last field with the brace that closes the entry.
	sumLength = len(sumField) + 2*sumBytes + len(`"}`)
)

// AppendEntry appends the canonical form of an entry, one line without the newline. That is a JSON object
//
//   - with the fields of [Entry] in this order: seq, recordedAt, previous, id, at, actor, action, phase, subject, detail, stored, sum; and likewise in actor, subject and stored;
//   - without phase, detail, stored, and without any field of actor, subject and stored but the required ones (kind; key, digest, size), where they are empty;
//   - without space between the parts;
//   - in UTF-8, where only the characters " and \ are escaped, each by a \ before it, and controls and invisible characters do not occur (they have become "�");
//   - with times in UTC with seconds, such as "2026-09-14T07:31:29Z", and numbers in decimal digits;
//   - with "sum": the first 16 hexadecimal digits of the SHA-256 of the same line without the field sum.
//
// It is written by hand rather than by a library, because a later version of a library may choose other escapes.
func AppendEntry(line []byte, e *Entry) []byte {
	begin := len(line)
	line = append(line, `{"seq":`...)
	line = strconv.AppendInt(line, e.Seq, 10)
	line = appendTime(line, `,"recordedAt":`, e.RecordedAt)
	line = appendText(line, `,"previous":`, e.Previous)
	line = appendText(line, `,"id":`, e.ID)
	line = appendTime(line, `,"at":`, e.At)
	line = appendText(line, `,"actor":{"kind":`, string(e.Actor.Kind))
	line = appendNotEmpty(line, `,"name":`, e.Actor.Name)
	line = appendText(line, `},"action":`, e.Action)
	line = appendNotEmpty(line, `,"phase":`, e.Phase)
	line = appendText(line, `,"subject":{"kind":`, e.Subject.Kind)
	line = appendNotEmpty(line, `,"namespace":`, e.Subject.Namespace)
	line = appendNotEmpty(line, `,"name":`, e.Subject.Name)
	line = appendNotEmpty(line, `,"uid":`, e.Subject.UID)
	line = append(line, '}')
	line = appendNotEmpty(line, `,"detail":`, e.Detail)
	if e.Stored != nil {
		line = appendStored(line, e.Stored)
	}
	line = append(line, '}')
	sum := sha256.Sum256(line[begin:])
	line = append(line[:len(line)-1], sumField...)
	line = hex.AppendEncode(line, sum[:sumBytes])
	return append(line, `"}`...)
}

func appendStored(line []byte, s *Stored) []byte {
	line = appendText(line, `,"stored":{"key":`, s.Key)
	line = appendText(line, `,"digest":`, s.Digest)
	line = append(line, `,"size":`...)
	line = strconv.AppendInt(line, s.Size, 10)
	line = appendNotEmpty(line, `,"plainDigest":`, s.PlainDigest)
	if s.PlainSize != 0 {
		line = append(line, `,"plainSize":`...)
		line = strconv.AppendInt(line, s.PlainSize, 10)
	}
	if s.Encrypted {
		line = append(line, `,"encrypted":true`...)
	}
	line = appendNotEmpty(line, `,"mediaType":`, s.MediaType)
	line = appendNotEmpty(line, `,"name":`, s.Name)
	return append(line, '}')
}

func appendTime(line []byte, key string, t time.Time) []byte {
	line = append(line, key...)
	line = append(line, '"')
	line = inSeconds(t).AppendFormat(line, time.RFC3339)
	return append(line, '"')
}

func appendNotEmpty(line []byte, key, text string) []byte {
	if text == "" {
		return line
	}
	return appendText(line, key, text)
}

// appendText appends a field. Whatever is unfit is replaced here too, so that a line with such a character can never be canonical.
func appendText(line []byte, key, text string) []byte {
	line = append(line, key...)
	line = append(line, '"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			line = append(line, '\\', byte(r))
		case r < utf8.RuneSelf && !unfit(r):
			line = append(line, byte(r))
		case unfit(r):
			line = utf8.AppendRune(line, utf8.RuneError)
		default:
			line = utf8.AppendRune(line, r)
		}
	}
	return append(line, '"')
}

// parseEntry reads a line that has to be canonical.
func parseEntry(line []byte) (Entry, error) {
	var e Entry
	switch {
	case len(line) > maxLine:
		return e, errors.New("it is longer than an entry can be")
	case !sumFits(line):
		return e, errors.New("its sum does not fit: the line was changed")
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, errors.New("it is not an entry: " + err.Error())
	}
	if !bytes.Equal(AppendEntry(make([]byte, 0, len(line)), &e), line) {
		return e, errors.New("it is not in canonical form")
	}
	return e, nil
}

// sumFits reports whether a line ends with the sum of the rest.
func sumFits(line []byte) bool {
	if len(line) < sumLength {
		return false
	}
	body, tail := line[:len(line)-sumLength], line[len(line)-sumLength:]
	hash := sha256.New()
	hash.Write(body)
	hash.Write([]byte("}"))
	want := append([]byte(sumField), hex.EncodeToString(hash.Sum(nil)[:sumBytes])+`"}`...)
	return bytes.Equal(tail, want)
}
