package evidence

import (
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Encode returns the document as JSON, the same bytes for the same document: no space, fields of structs in their order, keys of maps sorted. Characters that do not print, among them all that a terminal
// obeys, are escaped, so that whoever prints the document sees it and nothing else happens. What it means is not changed by that.
func Encode(document any) ([]byte, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encoding evidence: %w", err)
	}
	return escapeUnprintable(raw), nil
}

// escapeUnprintable escapes what does not print. Outside of strings JSON without space has nothing of the kind.
func escapeUnprintable(raw []byte) []byte {
	out := make([]byte, 0, len(raw)+len(raw)/64)
	for len(raw) > 0 {
		r, size := utf8.DecodeRune(raw)
		switch {
		case unicode.IsPrint(r) && (r != utf8.RuneError || size != 1):
			out = append(out, raw[:size]...)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		raw = raw[size:]
	}
	return out
}

// oneLine makes a text that came from outside fit for a message in status: one line of printable characters, at most 512 of them.
func oneLine(text string) string {
	const most = 512
	runes := []rune(text)
	if len(runes) > most {
		runes = append(runes[:most-1:most-1], '…')
	}
	for i, r := range runes {
		if !unicode.IsPrint(r) {
			runes[i] = unicode.ReplacementChar
		}
	}
	return string(runes)
}
