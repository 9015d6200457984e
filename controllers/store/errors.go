package store

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// What callers tell apart, with errors.Is.
var (
	// ErrExists says that the key is taken, or that somebody else is writing it at this moment. It may have been this very caller: where the answer to a write was lost, the
	// repeat finds what the first one wrote. Read tells.
	ErrExists = errors.New("the key is taken")
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("no such object")
	// ErrCorrupt says that what is stored is not what was written.
	ErrCorrupt = errors.New("what is stored is not what was written")
	// ErrDenied says that the store refuses access: wrong or expired credentials, or a permission that is missing.
	ErrDenied = errors.New("access denied")
)

// kinds survive when the text of an error has to be rewritten.
var kinds = []error{ErrExists, ErrNotFound, ErrCorrupt, ErrDenied, context.Canceled, context.DeadlineExceeded}

// Error is an error of a store. Its text and what it wraps hold no secrets and no control characters, whatever the service answered.
type Error struct {
	// Op is what was being done: create, read, put item, …
	Op string
	// Key is what it was done to; empty for the store as a whole.
	Key string
	// Store is its URL, without secrets; empty where the URL is what is wrong.
	Store string
	// Err is the cause.
	Err error
}

func (e *Error) Error() string {
	text := "evidence store"
	if e.Store != "" {
		text += " " + e.Store
	}
	text += ": " + e.Op
	if e.Key != "" {
		text += " " + e.Key
	}
	return text + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// cleaned is an error whose text had to be rewritten. It does not give the original away.
type cleaned struct {
	text string
	is   []error
}

func (c *cleaned) Error() string   { return c.text }
func (c *cleaned) Unwrap() []error { return c.is }

// scrubber knows the secrets that must not be told, longest first.
type scrubber []string

// maxErrorText bounds what a service can make us print, in characters.
const maxErrorText = 1024

// Clients put the whole URL of a failed request into their errors. Its query can be a signature, its user part a password.
var (
	urlQuery = regexp.MustCompile(`(https?://[^\s"'?]*)\?[^\s"']*`)
	urlUser  = regexp.MustCompile(`(\w://)[^\s"'/@]*@`)
)

func (s scrubber) text(text string) string {
	for _, secret := range s {
		text = strings.ReplaceAll(text, secret, "[secret]")
	}
	text = urlQuery.ReplaceAllString(text, "$1?[query]")
	text = urlUser.ReplaceAllString(text, "$1")
	runes := []rune(text)
	for i, r := range runes {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			runes[i] = ' '
		case !unicode.IsPrint(r):
			runes[i] = unicode.ReplacementChar
		}
	}
	if len(runes) > maxErrorText {
		runes = append(runes[:maxErrorText-1], '…')
	}
	return string(runes)
}

// clean returns the error itself if there is nothing in its text to hide, and otherwise one that says the rest and is of the same kinds.
func (s scrubber) clean(err error) error {
	text := s.text(err.Error())
	if text == err.Error() {
		return err
	}
	c := &cleaned{text: text}
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			c.is = append(c.is, kind)
		}
	}
	return c
}

// shortest is the length from which a value is searched for in texts; a shorter one would cross out ordinary words.
const shortest = 6

// newScrubber lists the secrets among the credentials, in the forms in which they may show up.
func newScrubber(credentials map[string][]byte) scrubber {
	var s scrubber
	add := func(value string) {
		for _, form := range []string{value, url.QueryEscape(value), strings.ReplaceAll(value, "\n", `\n`)} {
			if len(form) >= shortest && !slices.Contains(s, form) {
				s = append(s, form)
			}
		}
	}
	for name, value := range credentials {
		if name == credAccessKeyID || name == credStorageAccount {
			continue // These are names.
		}
		text := strings.TrimSpace(string(value))
		add(text)
		addParts(text, add)
	}
	slices.SortFunc(s, func(a, b string) int { return len(b) - len(a) })
	return s
}

// addParts adds the secret parts of a service account file and of a shared access signature.
func addParts(text string, add func(string)) {
	var file map[string]any
	if json.Unmarshal([]byte(text), &file) == nil {
		for name, value := range file {
			secret, ok := value.(string)
			if !ok || !strings.HasPrefix(name, "private_key") {
				continue
			}
			add(secret)
			for line := range strings.Lines(secret) {
				add(strings.TrimSpace(line))
			}
		}
	}
	if query, err := url.ParseQuery(strings.TrimPrefix(text, "?")); err == nil && query.Has("sig") {
		add(query.Get("sig"))
	}
}
