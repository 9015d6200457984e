package store_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"gocloud.dev/blob/memblob"
	clocktesting "k8s.io/utils/clock/testing"

	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/test/fakes3"
)

const uid = "0b7f5a4e-8a3f-4f43-9d57-3c3f0c1f2a10"

var s3Credentials = map[string][]byte{"accessKeyID": []byte("AKIDEXAMPLE"), "secretAccessKey": []byte("wJalrXUtnFEMI/K7MDENG")}

// backends opens a store in each kind of backend that can be had without a cloud.
func backends(t *testing.T) map[string]func(store.Options) *store.Store {
	t.Helper()
	open := func(url string) func(store.Options) *store.Store {
		return func(o store.Options) *store.Store { return mustOpen(t, url, o) }
	}
	fake, folder := fakes3.New(t), fakes3.New(t)
	s3 := func(url string) func(store.Options) *store.Store {
		return func(o store.Options) *store.Store {
			o.Credentials = s3Credentials
			return mustOpen(t, url, o)
		}
	}
	return map[string]func(store.Options) *store.Store{
		"memory":           open(newMemory()),
		"memory, prefix":   open(newMemory() + "?prefix=a/b"),
		"directory":        open("file://" + t.TempDir() + "/new/evidence"),
		"directory,prefix": open("file://" + t.TempDir() + "?prefix=a"),
		"gocloud": func(o store.Options) *store.Store {
			return mustNew(t, store.NewBucket(memblob.OpenBucket(nil)), o)
		},
		"s3":         s3(fake.StoreURL("")),
		"s3, prefix": s3(folder.StoreURL("&prefix=team-a")),
	}
}

// newMemory is the URL of a memory that nobody else uses.
func newMemory() string { return "mem://" + rand.Text() }

func mustOpen(t *testing.T, url string, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustNew(t *testing.T, b store.Backend, o store.Options) *store.Store {
	t.Helper()
	s, err := store.New(b, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// wantIs fails unless err is of the kind; nil is none at all.
func wantIs(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v; want %v", what, err, kind)
	}
}

func TestCreateAndRead(t *testing.T) {
	for name, open := range backends(t) {
		t.Run(name, func(t *testing.T) {
			s, ctx := open(store.Options{}), t.Context()
			key := "incidents/" + uid + "/ledger/000000000001-01.jsonl"
			_, err := s.Read(ctx, key)
			wantIs(t, "reading what is not there", err, store.ErrNotFound)
			_, err = s.OpenReader(ctx, key)
			wantIs(t, "opening what is not there", err, store.ErrNotFound)
			wantIs(t, "creating", s.Create(ctx, key, []byte("one\n")), nil)
			err = s.Create(ctx, key, []byte("two\n"))
			wantIs(t, "creating twice", err, store.ErrExists)
			if !strings.Contains(err.Error(), "create "+key) {
				t.Errorf("the error does not say what was done to what: %v", err)
			}
			got, err := s.Read(ctx, key)
			if err != nil || string(got) != "one\n" {
				t.Errorf("read %q, %v", got, err)
			}
			wantIs(t, "creating nothing", s.Create(ctx, "keys/empty.pem", nil), nil)
			got, err = s.Read(ctx, "keys/empty.pem")
			if err != nil || len(got) != 0 {
				t.Errorf("read %q, %v", got, err)
			}
			wantIs(t, "deleting", s.Delete(ctx, key), nil)
			wantIs(t, "deleting what is not there", s.Delete(ctx, key), nil)
			_, err = s.Read(ctx, key)
			wantIs(t, "reading what was deleted", err, store.ErrNotFound)
			wantIs(t, "creating what was deleted", s.Create(ctx, key, []byte("two\n")), nil)
		})
	}
}

func TestKeys(t *testing.T) {
	for name, open := range backends(t) {
		t.Run(name, func(t *testing.T) {
			s, ctx := open(store.Options{}), t.Context()
			all := []string{"a/1", "a/2/x", "a/2/y.jsonl", "a/20", "ab", "b", "c-d/e"}
			for _, key := range slices.Backward(all) {
				wantIs(t, "creating "+key, s.Create(ctx, key, []byte(key)), nil)
			}
			for prefix, want := range map[string][]string{
				"": all, "a": all[:5], "a/": all[:4], "a/2": all[1:4], "a/2/": all[1:3], "a/2/y": all[2:3], "x/y/": {}, "b/": {},
			} {
				got, err := s.Keys(ctx, prefix)
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("keys of %q: %v %s", prefix, err, diff)
				}
			}
		})
	}
}

func TestPutItem(t *testing.T) {
	for name, open := range backends(t) {
		for _, size := range []int{0, 1, 64, 65, 1000, 300_000} {
			t.Run(name, func(t *testing.T) {
				s, ctx := open(store.Options{}), t.Context()
				store.SetSmall(s, 64)
				data := bytes.Repeat([]byte{byte(size), 'x'}, size)[:size]
				want := store.Object{
					Key: "incidents/" + uid + "/items/" + sum(data), Digest: "sha256:" + sum(data), Size: int64(size),
					PlainDigest: "sha256:" + sum(data), PlainSize: int64(size),
				}
				for range 2 { // A repeat comes to lie in the same place.
					got, err := s.PutItem(ctx, uid, bytes.NewReader(data))
					if diff := cmp.Diff(want, got); diff != "" || err != nil {
						t.Fatalf("%v %s", err, diff)
					}
				}
				wantIs(t, "verifying", s.Verify(ctx, want), nil)
				got, err := s.Read(ctx, want.Key)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
				wantKeys(t, s, "incoming/")
			})
		}
	}
}

// wantKeys fails unless exactly these keys are there.
func wantKeys(t *testing.T, s *store.Store, prefix string, want ...string) {
	t.Helper()
	got, err := s.Keys(context.WithoutCancel(t.Context()), prefix)
	if err != nil {
		t.Error(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("keys %v; want %v", got, want)
	}
}

func TestDamageIsFoundAndRepaired(t *testing.T) {
	for name, open := range backends(t) {
		for damage, bad := range map[string]string{"cut": "evid", "longer": "evidence!", "changed": "evidenze"} {
			t.Run(name+" "+damage, func(t *testing.T) {
				s, ctx := open(store.Options{}), t.Context()
				for _, small := range []int{0, 100} {
					store.SetSmall(s, small)
					o, err := s.PutItem(ctx, uid, strings.NewReader("evidence"))
					wantIs(t, "putting", err, nil)
					wantIs(t, "damaging", store.BackendOf(s).Write(ctx, o.Key, strings.NewReader(bad), store.WriteOptions{}), nil)
					wantIs(t, "verifying", s.Verify(ctx, o), store.ErrCorrupt)
					again, err := s.PutItem(ctx, uid, strings.NewReader("evidence"))
					if diff := cmp.Diff(o, again); diff != "" || err != nil {
						t.Errorf("putting again: %v %s", err, diff)
					}
					wantIs(t, "verifying", s.Verify(ctx, o), nil)
					wantIs(t, "deleting", s.Delete(ctx, o.Key), nil)
					wantIs(t, "verifying", s.Verify(ctx, o), store.ErrNotFound)
				}
			})
		}
	}
}

func TestEncryption(t *testing.T) {
	classic, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	// Recipients of the two kinds cannot be mixed: age would lose what the second kind is for.
	for recipient, identity := range map[string]age.Identity{classic.Recipient().String(): classic, hybrid.Recipient().String(): hybrid} {
		for _, small := range []int{10, 1 << 20} {
			s := mustOpen(t, newMemory(), store.Options{Recipients: []string{" " + recipient + "\n"}})
			store.SetSmall(s, small)
			encrypts(t, s, identity)
		}
	}
}

// encrypts fails unless items are encrypted to the identity, each time anew, and nothing else is.
func encrypts(t *testing.T, s *store.Store, identity age.Identity) {
	t.Helper()
	ctx, data := t.Context(), bytes.Repeat([]byte("secret "), 20_000)
	first, err := s.PutItem(ctx, uid, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := s.Read(ctx, first.Key)
	if err != nil {
		t.Fatal(err)
	}
	want := store.Object{
		Key: "incidents/" + uid + "/items/" + sum(stored), Digest: "sha256:" + sum(stored), Size: int64(len(stored)),
		PlainDigest: "sha256:" + sum(data), PlainSize: int64(len(data)), Encrypted: true,
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
	if bytes.Contains(stored, data[:14]) {
		t.Error("stored in clear")
	}
	plain, err := age.Decrypt(bytes.NewReader(stored), identity)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, data) {
		t.Errorf("decrypted %d bytes, %v", len(got), err)
	}
	second, err := s.PutItem(ctx, uid, bytes.NewReader(data))
	if err != nil || second.Key == first.Key || second.PlainDigest != first.PlainDigest {
		t.Errorf("a repeat: %+v, %v", second, err)
	}
	// The ledger stays readable.
	wantIs(t, "creating", s.Create(ctx, "ledger/"+sum(stored), []byte("clear")), nil)
	if got, err := s.Read(ctx, "ledger/"+sum(stored)); err != nil || string(got) != "clear" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]store.Options{
		"a private key":     {Recipients: []string{identity.String()}},
		"nonsense":          {Recipients: []string{identity.Recipient().String(), "age1hunter2"}},
		"two in one":        {Recipients: []string{identity.Recipient().String() + "\n" + identity.Recipient().String()}},
		"an empty one":      {Recipients: []string{""}},
		"a negative lock":   {LockDays: -1},
		"an ssh public one": {Recipients: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice"}},
	} {
		s, err := store.Open(t.Context(), "mem://", o)
		if err == nil || s != nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), identity.String()) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: repeated: %v", name, err)
		}
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	parent := t.TempDir()
	if err := os.WriteFile(filepath.Join(parent, "outside"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, ctx := mustOpen(t, "file://"+parent+"/store", store.Options{}), t.Context()
	bad := []string{
		"", "/", "/etc/passwd", "../outside", "a/../../outside", "..", ".", "a/./b", "a//b", "a/", "A", "a b", "a\\..\\b", "a\x00b", "ä", "a%2e%2e", "a:b",
		strings.Repeat("a", 256), strings.Repeat("a/", 300) + "a",
	}
	for _, key := range bad {
		refusesKey(t, s, key)
	}
	for _, uid := range []string{"a/b", ".hidden", "..", "", strings.Repeat("a", 65)} {
		if _, err := s.PutItem(ctx, uid, strings.NewReader("x")); err == nil {
			t.Errorf("item of Incident %q", uid)
		}
	}
	for _, prefix := range []string{"../", "/", "a//", "./", "A"} {
		if _, err := s.Keys(ctx, prefix); err == nil {
			t.Errorf("listed %q", prefix)
		}
	}
	if err := s.Create(ctx, "incoming/mine", nil); err == nil {
		t.Error("created in incoming/")
	}
	wantKeys(t, s, "")
	if entries, err := os.ReadDir(parent); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

// refusesKey fails unless every operation refuses the key for what it is, and not because nothing is there.
func refusesKey(t *testing.T, s *store.Store, key string) {
	t.Helper()
	ctx := t.Context()
	err := s.Create(ctx, key, []byte("x"))
	if err == nil {
		t.Errorf("created %q", key)
	} else if strings.ContainsAny(err.Error(), "\x00\n") {
		t.Errorf("the error repeats %q raw", key)
	}
	if _, err := s.Read(ctx, key); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("reading %q: %v", key, err)
	}
	if _, err := s.OpenReader(ctx, key); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("opening %q: %v", key, err)
	}
	if err := s.Delete(ctx, key); err == nil {
		t.Errorf("deleted %q", key)
	}
	if err := s.Verify(ctx, store.Object{Key: key}); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("verifying %q: %v", key, err)
	}
	if _, err := s.PutItem(ctx, key, strings.NewReader("x")); err == nil && key != "a" {
		t.Errorf("item of Incident %q", key)
	}
}

func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "store")
	s, ctx := mustOpen(t, "file://"+dir, store.Options{}), t.Context()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	o, err := s.PutItem(ctx, uid, strings.NewReader("x"))
	wantIs(t, "putting", err, nil)
	if info, err := os.Stat(filepath.Join(dir, o.Key)); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// What a file system or somebody else has put there does not disturb.
	outside := filepath.Join(t.TempDir(), "outside")
	for _, err := range []error{
		os.WriteFile(outside, []byte("x"), 0o600), os.MkdirAll(filepath.Join(dir, "lost+found", "x"), 0o700), os.Symlink(outside, filepath.Join(dir, "link")),
		os.Symlink(filepath.Dir(outside), filepath.Join(dir, "out")), os.WriteFile(filepath.Join(dir, "UPPER"), nil, 0o600),
	} {
		wantIs(t, "preparing", err, nil)
	}
	wantKeys(t, s, "", o.Key)
	for _, key := range []string{"link", "out/outside"} {
		if data, err := s.Read(ctx, key); err == nil {
			t.Errorf("read %q through %s", data, key)
		}
	}
	if err := s.Create(ctx, "out/new", []byte("x")); err == nil {
		t.Error("created outside")
	}
	if ok, why := s.Locks(); ok || why == "" {
		t.Errorf("locks: %t %q", ok, why)
	}
}

// TestDirectoryIsSynced proves that nothing gets its name before it is on the disk, and that the name is made durable too.
func TestDirectoryIsSynced(t *testing.T) {
	dir := t.TempDir()
	s, ctx := mustOpen(t, "file://"+dir, store.Options{}), t.Context()
	var synced []string
	failAt := -1
	store.SetSync(store.BackendOf(s), func(f *os.File) error {
		if len(synced) == failAt {
			synced = append(synced, "failed")
			return fs.ErrInvalid
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		switch named := exists(filepath.Join(dir, "a/b")); {
		case !info.IsDir() && named:
			synced = append(synced, "a file that has its name")
		case !info.IsDir():
			synced = append(synced, "file")
		case named:
			synced = append(synced, "directory with the name")
		default:
			synced = append(synced, "directory")
		}
		return nil
	})
	wantIs(t, "creating", s.Create(ctx, "a/b", []byte("x")), nil)
	if diff := cmp.Diff([]string{"directory", "file", "directory", "directory with the name"}, synced); diff != "" {
		t.Error(diff)
	}
	for failAt = 1; ; failAt++ {
		wantIs(t, "deleting", os.RemoveAll(filepath.Join(dir, "a")), nil)
		synced = []string{"-"}
		err := s.Create(ctx, "a/b", []byte("x"))
		if err == nil {
			break
		}
		wantIs(t, "syncing", err, fs.ErrInvalid)
	}
	if failAt != 4 {
		t.Errorf("%d syncs are waited for", failAt-1)
	}
	wantKeys(t, s, "incoming/")
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func TestSweep(t *testing.T) {
	for name, open := range backends(t) {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(time.Now())
			s, ctx := open(store.Options{Clock: clock}), t.Context()
			wantIs(t, "uploading", store.BackendOf(s).Write(ctx, "incoming/broken", strings.NewReader("x"), store.WriteOptions{}), nil)
			wantIs(t, "creating", s.Create(ctx, "kept", nil), nil)
			clock.SetTime(clock.Now().Add(23 * time.Hour))
			if n, err := s.Sweep(ctx); n != 0 || err != nil {
				t.Errorf("swept %d, %v", n, err)
			}
			wantKeys(t, s, "", "incoming/broken", "kept")
			clock.SetTime(clock.Now().Add(2 * time.Hour))
			if n, err := s.Sweep(ctx); n != 1 || err != nil {
				t.Errorf("swept %d, %v", n, err)
			}
			wantKeys(t, s, "", "kept")
		})
	}
}

func TestCheck(t *testing.T) {
	for name, open := range backends(t) {
		t.Run(name, func(t *testing.T) {
			s := open(store.Options{})
			wantIs(t, "checking", s.Check(t.Context()), nil)
			wantKeys(t, s, "")
		})
	}
}

func TestStoresOfOneNameShareMemory(t *testing.T) {
	ctx := t.Context()
	shared := newMemory()
	a, b := mustOpen(t, shared, store.Options{}), mustOpen(t, shared, store.Options{})
	other := mustOpen(t, newMemory(), store.Options{})
	wantIs(t, "creating", a.Create(ctx, "x/y", nil), nil)
	wantKeys(t, b, "", "x/y")
	wantKeys(t, other, "")
	wantKeys(t, mustOpen(t, shared+"?prefix=x", store.Options{}), "", "y")
}

func TestReadIsBounded(t *testing.T) {
	s, ctx := mustOpen(t, "file://"+t.TempDir(), store.Options{}), t.Context()
	huge := io.LimitReader(zeros{}, store.MaxRead+1)
	wantIs(t, "writing", store.BackendOf(s).Write(ctx, "huge", huge, store.WriteOptions{}), nil)
	if data, err := s.Read(ctx, "huge"); err == nil || data != nil {
		t.Errorf("read %d bytes", len(data))
	}
	if err := s.Create(ctx, "large", make([]byte, store.MaxRead+1)); err == nil {
		t.Error("created what cannot be read")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestURLs(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	dir := t.TempDir()
	for raw, want := range map[string]string{
		"file://" + dir:                      "file://" + dir,
		"file://" + dir + "?prefix=/team/a/": "file://" + dir + "?prefix=%2Fteam%2Fa%2F",
		"mem://":                             "mem://",
		"mem://?prefix=a":                    "mem://?prefix=a",
		"s3://bucket?use_path_style=true&region=r&endpoint=https://minio.example:9000": "s3://bucket?endpoint=https%3A%2F%2Fminio.example%3A9000&region=r&use_path_style=true",
	} {
		var creds map[string][]byte
		if strings.HasPrefix(raw, "s3:") {
			creds = s3Credentials
		}
		if got := mustOpen(t, raw, store.Options{Credentials: creds}).URL(); got != want {
			t.Errorf("%s: %s", raw, got)
		}
	}
	for _, raw := range []string{
		"", "hunter2", "ftp://hunter2/", "file://hunter2/dir", "file:hunter2", "file:///dir?prefix=../hunter2", "file:///dir?prefix=Hunter2", "file:///dir?other=hunter2",
		"file:///dir#hunter2", "mem://a/hunter2", "s3://", "s3://bucket/hunter2", "s3://user:hunter2@bucket?region=r", "s3://bucket?region=r&secret=hunter2",
		"s3://bucket?region=r&region=hunter2", "s3://bucket?region=r&endpoint=https://a:hunter2@host", "s3://bucket?region=r&endpoint=hunter2", "s3://bucket?region=r&use_path_style=hunter2",
		"s3://bucket?region=r&request_checksum_calculation=hunter2", "s3://b\x00hunter2", "s3://bucket?region=%zzhunter2", "s3://bucket", "gs://bucket/hunter2", "azblob://", "azblob://box?sig=hunter2",
	} {
		s, err := store.Open(t.Context(), raw, store.Options{Credentials: s3Credentials})
		if err == nil || s != nil {
			t.Errorf("opened %q", raw)
		} else if msg := err.Error(); strings.Contains(msg, "hunter2") && strings.ContainsAny(raw, "@=") {
			t.Errorf("%q is repeated: %v", raw, err)
		}
	}
}

func TestCredentialsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		url   string
		creds map[string]string
	}{
		{"s3://b?region=r", map[string]string{}},
		{"s3://b?region=r", map[string]string{"accessKeyID": "hunter2"}},
		{"s3://b?region=r", map[string]string{"secretAccessKey": "hunter2"}},
		{"gs://b", map[string]string{}},
		{"gs://b", map[string]string{"serviceAccount.json": "hunter2"}},
		{"gs://b", map[string]string{"serviceAccount.json": `{"type":"external_account","audience":"hunter2"}`}},
		{"azblob://b", map[string]string{}},
		{"azblob://b", map[string]string{"storageKey": "hunter2"}},
		{"azblob://b", map[string]string{"storageAccount": "a"}},
		{"azblob://b", map[string]string{"storageAccount": "a", "storageKey": "hunter2", "sasToken": "hunter2"}},
		{"azblob://b", map[string]string{"storageAccount": "a", "storageKey": "hunter2!"}},
		{"azblob://b", map[string]string{"storageAccount": "a", "sasToken": "sig=hunter2%zz\x7f"}},
	} {
		creds := map[string][]byte{}
		for name, value := range c.creds {
			creds[name] = []byte(value)
		}
		_, err := store.Open(t.Context(), c.url, store.Options{Credentials: creds})
		if err == nil {
			t.Errorf("%s opened with %v", c.url, c.creds)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is told: %v", err)
		}
	}
}

func TestErrorsAreScrubbed(t *testing.T) {
	key := "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
	creds := map[string][]byte{
		"secretAccessKey":     []byte("wJalrXUtn/FEMI+K7\n"),
		"accessKeyID":         []byte("AKIDEXAMPLE"),
		"sasToken":            []byte("?sv=2024-11-04&sig=ab%2Bcd%3Def"),
		"serviceAccount.json": []byte(`{"type":"service_account","private_key_id":"0123456789abcdef","private_key":"` + strings.ReplaceAll(key, "\n", `\n`) + `"}`),
		"short":               []byte("to"),
	}
	for text, want := range map[string]string{
		"refused to AKIDEXAMPLE":                                   "refused to AKIDEXAMPLE",
		"with wJalrXUtn/FEMI+K7":                                   "with [secret]",
		"with wJalrXUtn%2FFEMI%2BK7":                               "with [secret]",
		"the signature ab+cd=ef":                                   "the signature [secret]",
		"key MIIEvQIBADANBgkqhkiG9w0BAQEFAASC of 0123456789abcdef": "key [secret] of [secret]",
		`Get "https://a.example/b?X-Amz-Signature=123": EOF`:       `Get "https://a.example/b?[query]": EOF`,
		"proxy http://me:pass@proxy:3128 is down":                  "proxy http://proxy:3128 is down",
		"\x1b[31mred\x1b[0m\nnext\u202e":                           "�[31mred�[0m next�",
		strings.Repeat("x", 5000):                                  strings.Repeat("x", 1023) + "…",
	} {
		if diff := cmp.Diff(want, store.Scrub(creds, text)); diff != "" {
			t.Error(diff)
		}
	}
}
