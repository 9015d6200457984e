package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/test/fakes3"
)

// part is more than S3 takes in one request of ours.
const part = 6 << 20

func TestS3Locks(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	fake := fakes3.New(t)
	s := mustOpen(t, fake.StoreURL("&request_checksum_calculation=when_required"), store.Options{Credentials: s3Credentials, LockDays: 90, Clock: clocktesting.NewFakePassiveClock(now)})
	store.SetSmall(s, 10)
	ctx := t.Context()
	wantIs(t, "creating", s.Create(ctx, ledgerKey, []byte(evidence)), nil)
	small, err := s.PutItem(ctx, uid, strings.NewReader("small"))
	wantIs(t, "small item", err, nil)
	large, err := s.PutItem(ctx, uid, bytes.NewReader(make([]byte, part)))
	wantIs(t, "large item", err, nil)
	lock := " COMPLIANCE 2026-05-30T12:00:00Z"
	var got []string
	for _, request := range fake.Requests {
		if before, random, ok := strings.Cut(request, "incoming/"); ok {
			// The name is random; a lock after it would still be seen.
			_, after, _ := strings.Cut(random+" ", " ")
			request = strings.TrimSpace(before + "incoming/… " + after)
		}
		got = append(got, request)
	}
	want := []string{
		"PUT " + ledgerKey + " *" + lock, "PUT " + small.Key + " *" + lock, "BEGIN incoming/…", "COMPLETE incoming/…", "COPY " + large.Key + lock, "DELETE incoming/…",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if ok, why := s.Locks(); !ok {
		t.Errorf("not locked: %s", why)
	}
	fake.Blind = true
	wantIs(t, "creating", s.Create(ctx, "keys/a.pem", nil), nil)
	if ok, why := s.Locks(); ok || !strings.Contains(why, "shows none") {
		t.Errorf("locks: %t %q", ok, why)
	}
}

func TestLocksAreToldHonestly(t *testing.T) {
	t.Setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
	for url, c := range map[string]struct {
		days  int
		creds map[string][]byte
		want  bool
		why   string
	}{
		"file://" + t.TempDir(): {30, nil, false, "directory"},
		"mem://":                {30, nil, false, "memory"},
		"s3://b?region=r":       {0, s3Credentials, false, "asked"},
		"s3://c?region=r":       {1, s3Credentials, true, ""},
		"gs://b":                {1, nil, true, ""},
		"azblob://b":            {1, map[string][]byte{"storageAccount": []byte("a"), "storageKey": []byte("c2VjcmV0")}, false, "retention policy"},
	} {
		s := mustOpen(t, url, store.Options{LockDays: c.days, Credentials: c.creds})
		if ok, why := s.Locks(); ok != c.want || !strings.Contains(why, c.why) || (why == "") != ok {
			t.Errorf("%s: %t %q", url, ok, why)
		}
	}
}

func TestS3Refusals(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{403, "AccessDenied", store.ErrDenied},
		{403, "InvalidAccessKeyId", store.ErrDenied},
		{403, "SignatureDoesNotMatch", store.ErrDenied},
		{400, "ExpiredToken", store.ErrDenied},
		{401, "Whatever", store.ErrDenied},
		{400, "InvalidRequest", nil},
	} {
		fake := fakes3.New(t)
		s := mustOpen(t, fake.StoreURL(""), store.Options{Credentials: s3Credentials})
		o, err := s.PutItem(t.Context(), uid, strings.NewReader(evidence))
		wantIs(t, "putting", err, nil)
		fake.Refuse = &fakes3.Refusal{Status: c.status, Code: c.code}
		for what, err := range calls(t.Context(), s, o) {
			if c.want == nil {
				if err == nil || errors.Is(err, store.ErrDenied) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrExists) {
					t.Errorf("%s, %s: %v", c.code, what, err)
				}
				continue
			}
			// The answer to a HEAD has no body: only the status tells, and 400 says nothing.
			if c.status == 400 && what == "delete" {
				continue
			}
			wantIs(t, c.code+", "+what, err, c.want)
			if text := err.Error(); strings.Contains(text, "wJalrXUtnFEMI") || strings.Contains(text, "\u202e") {
				t.Errorf("told: %q", text)
			}
		}
		fake.Refuse = nil
		wantKeys(t, s, "", o.Key)
	}
}

func TestS3WithoutBucket(t *testing.T) {
	fake := fakes3.New(t)
	s := mustOpen(t, strings.Replace(fake.StoreURL(""), "//evidence", "//other", 1), store.Options{Credentials: s3Credentials})
	_, err := s.Read(t.Context(), "a")
	if err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("a missing bucket passes for a missing object: %v", err)
	}
	_, err = s.Keys(t.Context(), "a")
	if err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("a missing bucket passes for an empty one: %v", err)
	}
}

func TestS3LostRace(t *testing.T) {
	fake := fakes3.New(t)
	s := mustOpen(t, fake.StoreURL(""), store.Options{Credentials: s3Credentials})
	fake.Refuse = &fakes3.Refusal{Status: 409, Code: "ConditionalRequestConflict"}
	wantIs(t, "creating while somebody else does", s.Create(t.Context(), "a", nil), store.ErrExists)
}

// TestS3BrokenUploads breaks off in the middle of an upload in parts, by the source and by the context, and lets Sweep find what a killed manager leaves behind.
func TestS3BrokenUploads(t *testing.T) {
	fake := fakes3.New(t)
	clock := clocktesting.NewFakePassiveClock(fake.Now)
	s, ctx := mustOpen(t, fake.StoreURL("&prefix=team"), store.Options{Credentials: s3Credentials, Clock: clock}), t.Context()
	cause := errors.New("the stream broke off")
	_, err := s.PutItem(ctx, uid, io.MultiReader(bytes.NewReader(make([]byte, 2*part)), iotest.ErrReader(cause)))
	wantIs(t, "putting", err, cause)
	short, cancel := context.WithCancel(ctx)
	_, err = s.PutItem(short, uid, io.MultiReader(bytes.NewReader(make([]byte, 2*part)), endOf(cancel)))
	wantIs(t, "putting", err, context.Canceled)
	if len(fake.Uploads) != 0 || len(fake.Keys()) != 0 {
		t.Errorf("left: %v %v", fake.Uploads, fake.Keys())
	}
	fake.Uploads["left"] = &fakes3.Upload{Key: "team/incoming/x", Initiated: fake.Now}
	fake.Uploads["others"] = &fakes3.Upload{Key: "else/incoming/x", Initiated: fake.Now}
	for _, tc := range []struct {
		age  time.Duration
		left int
	}{{23 * time.Hour, 2}, {25 * time.Hour, 1}} {
		clock.SetTime(fake.Now.Add(tc.age))
		if _, err := s.Sweep(ctx); err != nil {
			t.Error(err)
		}
		if got := len(fake.Uploads); got != tc.left {
			t.Errorf("%d uploads are left after %s; want %d", got, tc.age, tc.left)
		}
	}
	if _, ok := fake.Uploads["others"]; !ok {
		t.Error("removed the upload of somebody else")
	}
}

// endOf calls cancel when it is read, and never says anything.
func endOf(cancel func()) io.Reader {
	r, _ := io.Pipe()
	return readerFunc(func(p []byte) (int, error) {
		cancel()
		return r.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestCopyThrough copies what is too large for the service to copy by itself.
func TestCopyThrough(t *testing.T) {
	fake := fakes3.New(t)
	s := mustOpen(t, fake.StoreURL(""), store.Options{Credentials: s3Credentials, LockDays: 1})
	store.SetSmall(s, 10)
	store.SetCopyMax(store.BackendOf(s), part-1)
	o, err := s.PutItem(t.Context(), uid, bytes.NewReader(make([]byte, part)))
	wantIs(t, "putting", err, nil)
	wantKeys(t, s, "", o.Key)
	for _, request := range fake.Requests {
		if strings.HasPrefix(request, "COPY") {
			t.Error(request)
		}
	}
	if ok, why := s.Locks(); !ok {
		t.Errorf("not locked: %s", why)
	}
}
