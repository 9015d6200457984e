package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// location is a store's URL, taken apart. It holds nothing secret.
type location struct {
	scheme string
	// host is the bucket, the container or the name of the memory; path the directory.
	host, path string
	// prefix comes before every key; empty or ending in '/'.
	prefix string
	params url.Values
}

// opener opens the backends of one scheme.
type opener struct {
	// params are the query parameters that the scheme knows, besides prefix.
	params []string
	open   func(ctx context.Context, at location, opts Options) (Backend, error)
}

// openers are the schemes, one file each.
func openers() map[string]opener {
	return map[string]opener{
		"file":   {open: openDirectory},
		"mem":    {open: openMemory},
		"s3":     {open: openS3, params: []string{"region", paramEndpoint, "use_path_style", "ssetype", "kmskeyid", "request_checksum_calculation"}},
		"gs":     {open: openGCS},
		"azblob": {open: openAzure, params: []string{"storage_account", "domain", "protocol"}},
	}
}

const (
	paramPrefix   = "prefix"
	paramEndpoint = "endpoint"
)

// parse takes a store's URL apart. The errors do not repeat it: people put passwords into URLs.
func parse(raw string) (location, opener, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return location{}, opener{}, errors.New("not a URL")
	}
	o, ok := openers()[u.Scheme]
	if !ok {
		return location{}, opener{}, fmt.Errorf("unknown scheme %.20q; file, mem, s3, gs and azblob are known", u.Scheme)
	}
	if u.User != nil {
		return location{}, opener{}, errors.New("credentials do not belong in the URL; they are taken from a Secret")
	}
	if u.Fragment != "" || u.Opaque != "" {
		return location{}, opener{}, fmt.Errorf("a URL of the form %s://… has no fragment and two slashes", u.Scheme)
	}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return location{}, opener{}, errors.New("the query of the URL is malformed")
	}
	at := location{scheme: u.Scheme, host: u.Host, path: u.Path, params: params}
	if err := at.checkParams(o.params); err != nil {
		return location{}, opener{}, err
	}
	return at, o, nil
}

func (l *location) checkParams(known []string) error {
	for name, values := range l.params {
		if name != paramPrefix && !slices.Contains(known, name) {
			return fmt.Errorf("unknown parameter %.40q; %s:// takes %v", name, l.scheme, append([]string{paramPrefix}, known...))
		}
		if len(values) != 1 {
			return fmt.Errorf("parameter %q is given %d times", name, len(values))
		}
	}
	if prefix := strings.Trim(l.params.Get(paramPrefix), "/"); prefix != "" {
		if err := checkKey(prefix); err != nil {
			return fmt.Errorf("parameter %q: %w", paramPrefix, err)
		}
		l.prefix = prefix + "/"
	}
	if raw := l.params.Get(paramEndpoint); raw != "" {
		e, err := url.Parse(raw)
		if err != nil || e.User != nil || e.RawQuery != "" || e.Host == "" || (e.Scheme != "https" && e.Scheme != "http") {
			return fmt.Errorf("parameter %q: want https://host[:port][/path], without credentials and query", paramEndpoint)
		}
	}
	return nil
}

// bucket is the host, for the schemes whose URLs are no more than a bucket.
func (l *location) bucket() (string, error) {
	if l.host == "" || strings.Trim(l.path, "/") != "" {
		return "", fmt.Errorf("want %s://BUCKET; a folder in it is given as prefix=", l.scheme)
	}
	return l.host, nil
}

// String is the URL in one form. Parameters that could be secret are not among those that are known.
func (l *location) String() string {
	u := url.URL{Scheme: l.scheme, Host: l.host, Path: l.path, RawQuery: l.params.Encode()}
	text := u.String()
	// An empty host would otherwise be left out: mem:?prefix=a.
	if rest, ok := strings.CutPrefix(text, l.scheme+":"); ok && !strings.HasPrefix(rest, "//") {
		text = l.scheme + "://" + rest
	}
	return text
}
