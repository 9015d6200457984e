package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

// Option changes how a document is encoded.
type Option func(*encoding)

type encoding struct {
	redact bool
}

// Redacted is what stands where Redact has blanked a value.
const Redacted = "<redacted>"

// secretLooking finds the keys of annotations that by their name hold credentials.
var secretLooking = regexp.MustCompile(`(?i)passw(or)?d|secret|token|credential|api-?key|access-?key|private-?key`)

// Redact blanks the literal values of environment variables, wherever in the document there is a list "env" of them, and the values of annotations whose key looks like that of a credential.
//
// The annotation kubectl.kubernetes.io/last-applied-configuration stays: it is evidence of what was meant, and so of what was changed past it. But it repeats the whole object, and so the same values
// are blanked inside it; where it is not JSON it is blanked as a whole. Commands and arguments are not looked into: what is secret in them, nobody but the application knows.
func Redact(e *encoding) { e.redact = true }

// Encode returns the document as JSON, the same bytes for the same document: no space, fields of structs in their order, keys of maps sorted. Characters that do not print, among them all that a terminal
// obeys, are escaped, so that whoever prints the document sees it and nothing else happens. What it means is not changed by that.
func Encode(document any, opts ...Option) ([]byte, error) {
	var e encoding
	for _, opt := range opts {
		opt(&e)
	}
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encoding evidence: %w", err)
	}
	if e.redact {
		if raw, err = redactJSON(raw); err != nil {
			return nil, fmt.Errorf("redacting evidence: %w", err)
		}
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

// redactJSON decodes numbers as they are written: a float64 would change large ones.
func redactJSON(raw []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	redactValue(value)
	return json.Marshal(value)
}

func redactValue(value any) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			redactValue(item)
		}
	case map[string]any:
		if env, ok := v["env"].([]any); ok {
			redactEnv(env)
		}
		if annotations, ok := v["annotations"].(map[string]any); ok {
			redactAnnotations(annotations)
		}
		for _, field := range v {
			redactValue(field)
		}
	}
}

func redactEnv(env []any) {
	for _, item := range env {
		if variable, ok := item.(map[string]any); ok {
			if value, set := variable["value"]; set && value != "" {
				variable["value"] = Redacted
			}
		}
	}
}

func redactAnnotations(annotations map[string]any) {
	for key, value := range annotations {
		switch {
		case key == corev1.LastAppliedConfigAnnotation:
			text, _ := value.(string)
			inner, err := redactJSON([]byte(text))
			if err != nil {
				annotations[key] = Redacted
				continue
			}
			annotations[key] = string(inner)
		case secretLooking.MatchString(key):
			annotations[key] = Redacted
		}
	}
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
