// Package fakes3 is an S3 service on loopback for tests: as much of the API as an evidence store uses.
package fakes3

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server answers the calls of the S3 API that a store makes. Bodies go to files, so that they do not count as memory of the store.
type Server struct {
	*httptest.Server
	t   testing.TB
	dir string

	mu      sync.Mutex
	objects map[string]object
	// Uploads are the multipart uploads under way.
	Uploads map[string]*Upload
	next    int
	// Requests are the changes that were asked for: method, key and the headers that matter.
	Requests []string
	// Refuse answers everything with this status and code.
	Refuse *Refusal
	// Deaf does not heed If-None-Match; Blind does not show locks.
	Deaf, Blind bool
	// Now is when everything happens.
	Now time.Time
	// signers are the access keys that requests were signed with.
	signers []string
}

type object struct {
	file     string
	size     int64
	modified time.Time
	lock     [2]string
}

// Upload is a multipart upload.
type Upload struct {
	Key       string
	parts     map[int]string
	lock      [2]string
	Initiated time.Time
}

// Refusal is an answer that says no.
type Refusal struct {
	Status int
	Code   string
}

// New starts a service, which ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	f := &Server{t: t, dir: t.TempDir(), objects: map[string]object{}, Uploads: map[string]*Upload{}, Now: time.Now().Truncate(time.Second)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// StoreURL is that of a store in the service.
func (f *Server) StoreURL(extra string) string {
	return "s3://evidence?region=eu-north-1&use_path_style=true&endpoint=" + url.QueryEscape(f.URL) + extra
}

// Changes are the changes that were asked for so far.
func (f *Server) Changes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.Requests)
}

// Signers are the access keys that requests were signed with, in order; each is named when it comes up.
func (f *Server) Signers() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.signers)
}

func (f *Server) noteSigner(r *http.Request) {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(rest, "/")
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.signers) == 0 || f.signers[len(f.signers)-1] != key {
		f.signers = append(f.signers, key)
	}
}

// ServeHTTP answers one call.
func (f *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.noteSigner(r)
	key, ok := strings.CutPrefix(r.URL.Path, "/evidence")
	key = strings.TrimPrefix(key, "/")
	switch {
	case f.Refuse != nil:
		f.fail(w, r, f.Refuse.Status, f.Refuse.Code)
	case !ok:
		f.fail(w, r, 404, "NoSuchBucket")
	case key == "":
		f.list(w, r)
	default:
		f.serve(w, r, key)
	}
}

func (f *Server) serve(w http.ResponseWriter, r *http.Request, key string) {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		f.begin(w, r, key)
	case r.Method == http.MethodPost:
		f.complete(w, r, key, q.Get("uploadId"))
	case r.Method == http.MethodPut && q.Has("uploadId"):
		f.part(w, r, q)
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		f.copy(w, r, key)
	case r.Method == http.MethodPut:
		f.put(w, r, key)
	case r.Method == http.MethodDelete:
		f.delete(w, r, key, q.Get("uploadId"))
	default:
		f.get(w, r, key)
	}
}

func (f *Server) fail(w http.ResponseWriter, r *http.Request, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>text \u202ethat runs backwards</Message></Error>", code)
	}
}

// keep writes a body to a file. It takes bodies as they are, not in signed chunks; over plain HTTP the client sends no others.
func (f *Server) keep(r io.Reader) (string, int64) {
	file, err := os.CreateTemp(f.dir, "")
	if err != nil {
		f.t.Error(err)
		return "", 0
	}
	n, err := io.Copy(file, r)
	if err != nil {
		f.t.Logf("a body that broke off: %v", err)
	}
	if err := file.Close(); err != nil {
		f.t.Error(err)
	}
	return file.Name(), n
}

// shut closes a file, and fails the test when that fails.
func (f *Server) shut(file io.Closer) {
	if err := file.Close(); err != nil {
		f.t.Error(err)
	}
}

func lockOf(r *http.Request) [2]string {
	return [2]string{r.Header.Get("X-Amz-Object-Lock-Mode"), r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date")}
}

func (f *Server) note(r *http.Request, what, key string) {
	lock := lockOf(r)
	words := []string{what, key, r.Header.Get("If-None-Match"), lock[0], lock[1]}
	f.Requests = append(f.Requests, strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " "))
}

func (f *Server) put(w http.ResponseWriter, r *http.Request, key string) {
	if strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") {
		f.t.Error("the fake does not take apart chunks")
	}
	file, size := f.keep(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(r, "PUT", key)
	if size != r.ContentLength {
		return // S3 stores nothing either.
	}
	if lockOf(r)[0] != "" && r.Header.Get("X-Amz-Checksum-Crc32") == "" {
		f.fail(w, r, 400, "InvalidRequest")
		return
	}
	if _, taken := f.objects[key]; taken && r.Header.Get("If-None-Match") == "*" && !f.Deaf {
		f.fail(w, r, 412, "PreconditionFailed")
		return
	}
	f.objects[key] = object{file: file, size: size, modified: f.Now, lock: lockOf(r)}
}

func (f *Server) copy(w http.ResponseWriter, r *http.Request, key string) {
	source, err := url.QueryUnescape(r.Header.Get("X-Amz-Copy-Source"))
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(r, "COPY", key)
	from, ok := f.objects[strings.TrimPrefix(source, "evidence/")]
	if !ok {
		f.fail(w, r, 404, "NoSuchKey")
		return
	}
	f.objects[key] = object{file: from.file, size: from.size, modified: f.Now, lock: lockOf(r)}
	fmt.Fprint(w, "<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>")
}

func (f *Server) get(w http.ResponseWriter, r *http.Request, key string) {
	f.mu.Lock()
	o, ok := f.objects[key]
	blind := f.Blind
	f.mu.Unlock()
	if !ok {
		f.fail(w, r, 404, "NoSuchKey")
		return
	}
	w.Header().Set("Last-Modified", o.modified.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", strconv.FormatInt(o.size, 10))
	if o.lock[0] != "" && !blind {
		w.Header().Set("X-Amz-Object-Lock-Mode", o.lock[0])
		w.Header().Set("X-Amz-Object-Lock-Retain-Until-Date", o.lock[1])
	}
	if r.Method == http.MethodHead {
		return
	}
	file, err := os.Open(o.file)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer f.shut(file)
	if _, err := io.Copy(w, file); err != nil {
		f.t.Logf("a reader that went away: %v", err)
	}
}

func (f *Server) delete(w http.ResponseWriter, r *http.Request, key, upload string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if upload != "" {
		f.note(r, "ABORT", key)
		delete(f.Uploads, upload)
	} else {
		f.note(r, "DELETE", key)
		delete(f.objects, key)
	}
	w.WriteHeader(204)
}

func (f *Server) begin(w http.ResponseWriter, r *http.Request, key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(r, "BEGIN", key)
	f.next++
	id := strconv.Itoa(f.next)
	f.Uploads[id] = &Upload{Key: key, parts: map[int]string{}, lock: lockOf(r), Initiated: f.Now}
	fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
}

func (f *Server) part(w http.ResponseWriter, r *http.Request, q url.Values) {
	file, size := f.keep(r.Body)
	number, err := strconv.Atoi(q.Get("partNumber"))
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.Uploads[q.Get("uploadId")]
	if u == nil || size != r.ContentLength {
		f.fail(w, r, 404, "NoSuchUpload")
		return
	}
	u.parts[number] = file
	w.Header().Set("ETag", `"`+strconv.Itoa(number)+`"`)
}

func (f *Server) complete(w http.ResponseWriter, r *http.Request, key, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(r, "COMPLETE", key)
	u := f.Uploads[id]
	if u == nil {
		f.fail(w, r, 404, "NoSuchUpload")
		return
	}
	if _, taken := f.objects[key]; taken && r.Header.Get("If-None-Match") == "*" {
		f.fail(w, r, 412, "PreconditionFailed")
		return
	}
	var readers []io.Reader
	for n := 1; n <= len(u.parts); n++ {
		part, err := os.Open(u.parts[n])
		if err != nil {
			f.t.Error(err)
			return
		}
		defer f.shut(part)
		readers = append(readers, part)
	}
	file, size := f.keep(io.MultiReader(readers...))
	f.objects[key] = object{file: file, size: size, modified: f.Now, lock: u.lock}
	delete(f.Uploads, id)
	fmt.Fprint(w, "<CompleteMultipartUploadResult><ETag>\"x\"</ETag></CompleteMultipartUploadResult>")
}

type content struct {
	Key          string
	Size         int64
	LastModified time.Time
}

type listing struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	Contents              []content
}

// pageOf is small, so that listings go over several pages.
const pageOf = 3

func (f *Server) list(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := r.URL.Query()
	if q.Has("uploads") {
		fmt.Fprint(w, "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>")
		for id, u := range f.Uploads {
			if strings.HasPrefix(u.Key, q.Get("prefix")) {
				fmt.Fprintf(w, "<Upload><Key>%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>", u.Key, id, u.Initiated.UTC().Format(time.RFC3339))
			}
		}
		fmt.Fprint(w, "</ListMultipartUploadsResult>")
		return
	}
	var out listing
	for key, o := range f.objects {
		if strings.HasPrefix(key, q.Get("prefix")) && key > q.Get("continuation-token") {
			out.Contents = append(out.Contents, content{key, o.size, o.modified.UTC()})
		}
	}
	slices.SortFunc(out.Contents, func(a, b content) int { return strings.Compare(a.Key, b.Key) })
	if len(out.Contents) > pageOf {
		out.Contents, out.IsTruncated = out.Contents[:pageOf], true
		out.NextContinuationToken = out.Contents[pageOf-1].Key
	}
	if err := xml.NewEncoder(w).Encode(out); err != nil {
		f.t.Error(err)
	}
}

// Keys are the keys of what is stored, sorted.
func (f *Server) Keys() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var keys []string
	for key := range f.objects {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
