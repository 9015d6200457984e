package custody

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// sealed ends a line with the sum that it should have.
func sealed(line string) string {
	sum := sha256.Sum256([]byte(line))
	return strings.TrimSuffix(line, "}") + `,"sum":"` + hex.EncodeToString(sum[:8]) + `"}`
}

func TestCanonicalFormOfEntries(t *testing.T) {
	previous := genesis(uid)
	cases := map[string]struct {
		entry Entry
		want  string
	}{
		"least": {
			entry: Entry{Seq: 1, RecordedAt: start, Previous: previous, Fact: Fact{ID: "a", At: start, Actor: Actor{Kind: ActorObservation}, Action: "Contained=True", Subject: Subject{Kind: "Incident"}}},
			want:  `{"seq":1,"recordedAt":"2026-09-14T07:31:29Z","previous":"` + previous + `","id":"a","at":"2026-09-14T07:31:29Z","actor":{"kind":"Observation"},"action":"Contained=True","subject":{"kind":"Incident"}}`,
		},
		"everything": {
			entry: Entry{Seq: 23, RecordedAt: start, Previous: previous, Fact: Fact{
				ID: "b", At: start.Add(-time.Minute), Actor: Actor{Kind: ActorPerson, Name: "ann@example.org"}, Action: "Collected", Phase: PhaseOutcome,
				Subject: Subject{Kind: "Pod", Namespace: "shop", Name: "web", UID: "u"}, Detail: `<said "no" \ & ü>`,
				Stored: &Stored{Key: "k", Digest: "d", Size: 7, PlainDigest: "p", PlainSize: 5, Encrypted: true, MediaType: "text/plain", Name: "logs"},
			}},
			want: `{"seq":23,"recordedAt":"2026-09-14T07:31:29Z","previous":"` + previous + `","id":"b","at":"2026-09-14T07:30:29Z","actor":{"kind":"Person","name":"ann@example.org"},"action":"Collected","phase":"Outcome",` +
				`"subject":{"kind":"Pod","namespace":"shop","name":"web","uid":"u"},"detail":"<said \"no\" \\ & ü>","stored":{"key":"k","digest":"d","size":7,"plainDigest":"p","plainSize":5,"encrypted":true,"mediaType":"text/plain","name":"logs"}}`,
		},
		"another time zone, parts of a second, unfit text": {
			entry: Entry{Seq: 1, RecordedAt: start.Add(999 * time.Millisecond).In(time.FixedZone("", 7200)), Previous: previous, Fact: Fact{ID: "a\x1b[31m", Actor: Actor{Kind: ActorObservation}, Action: "a\nb\u202ec\xff", Subject: Subject{}}},
			want:  `{"seq":1,"recordedAt":"2026-09-14T07:31:29Z","previous":"` + previous + `","id":"a�[31m","at":"0001-01-01T00:00:00Z","actor":{"kind":"Observation"},"action":"a�b�c�","subject":{"kind":""}}`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := AppendEntry(nil, &tc.entry)
			if diff := cmp.Diff(sealed(tc.want), string(got)); diff != "" {
				t.Errorf("canonical form (-want +got):\n%s", diff)
			}
			again, err := parseEntry(got)
			if err != nil {
				t.Fatalf("the canonical form cannot be read: %v", err)
			}
			if !bytes.Equal(AppendEntry(nil, &again), got) {
				t.Error("an entry that was read has another canonical form")
			}
		})
	}
}

func TestOnlyTheCanonicalFormIsRead(t *testing.T) {
	good := `{"seq":1,"recordedAt":"2026-09-14T07:31:29Z","previous":"` + genesis(uid) + `","id":"a","at":"2026-09-14T07:31:29Z","actor":{"kind":"Person","name":"ann"},"action":"Declare","subject":{"kind":"Incident"},"detail":"é/"}`
	if _, err := parseEntry([]byte(sealed(good))); err != nil {
		t.Fatalf("the good line is refused: %v", err)
	}
	for name, change := range map[string][2]string{
		"space":                   {`"seq":1,`, `"seq": 1,`},
		"space at the end":        {`"detail":"é/"}`, `"detail":"é/"} `},
		"another order":           {`"kind":"Person","name":"ann"`, `"name":"ann","kind":"Person"`},
		"another case":            {`"seq"`, `"Seq"`},
		"a field twice":           {`"seq":1,`, `"seq":1,"seq":1,`},
		"a field of its own":      {`"seq":1,`, `"seq":1,"x":1,`},
		"an empty field":          {`"action"`, `"phase":"","action"`},
		"null":                    {`"detail":"é/"`, `"detail":"é/","stored":null`},
		"an escape":               {`é`, `\u00e9`},
		"an escape of a slash":    {`é/`, `é\/`},
		"a control character":     {`é`, "\x1b[31m"},
		"an escaped control":      {`é`, `\u001b[31m`},
		"DEL":                     {`é`, "\x7f"},
		"a change of direction":   {`é`, "\u202e"},
		"bytes that are not text": {`é`, "\xff\xfe"},
		"a number as text":        {`"seq":1,`, `"seq":"1",`},
		"a number with exponent":  {`"seq":1,`, `"seq":1e0,`},
		"a number with a zero":    {`"seq":1,`, `"seq":01,`},
		"a time with a fraction":  {`"at":"2026-09-14T07:31:29Z"`, `"at":"2026-09-14T07:31:29.5Z"`},
		"a time with a zone":      {`"at":"2026-09-14T07:31:29Z"`, `"at":"2026-09-14T09:31:29+02:00"`},
		"two values":              {`"detail":"é/"}`, `"detail":"é/"}{}`},
	} {
		t.Run(name, func(t *testing.T) {
			line := sealed(strings.Replace(good, change[0], change[1], 1))
			if e, err := parseEntry([]byte(line)); err == nil {
				t.Errorf("%s was read as %+v", line, e)
			}
		})
	}
}

func TestASumThatDoesNotFitIsRefused(t *testing.T) {
	e := Entry{Seq: 1, RecordedAt: start, Previous: genesis(uid), Fact: fact("a")}
	line := AppendEntry(nil, &e)
	for i := range line {
		changed := bytes.Clone(line)
		changed[i] ^= 1
		if _, err := parseEntry(changed); err == nil {
			t.Errorf("a line with a changed byte %d is read: %s", i, changed)
		}
	}
}

func TestFactsAreMadeFit(t *testing.T) {
	long := strings.Repeat("ü", 3000)
	f := fact("a")
	f.Detail, f.Subject.Name, f.Actor.Name, f.At = "log: \x1b]0;owned\a\r\n"+long, long, "a\u200bb", start.Add(300*time.Millisecond)
	got, err := prepare(f, uid)
	if err != nil {
		t.Fatal(err)
	}
	if n := utf8.RuneCountInString(got.Detail); n != MaxDetail || !strings.HasPrefix(got.Detail, "log: �]0;owned���ü") || !strings.HasSuffix(got.Detail, "ü…") {
		t.Errorf("the detail has %d characters: %.60q", n, got.Detail)
	}
	if n := utf8.RuneCountInString(got.Subject.Name); n != maxName {
		t.Errorf("the name has %d characters", n)
	}
	if got.Actor.Name != "a�b" || !got.At.Equal(start) {
		t.Errorf("actor %q at %s", got.Actor.Name, got.At)
	}
	if longest := len(AppendEntry(nil, &Entry{Fact: got})); longest > maxLine/2 {
		t.Errorf("a line has %d bytes", longest)
	}
}

func TestFactsThatAProgramHasGotWrong(t *testing.T) {
	d := digest([]byte("x"))
	cases := map[string]func(*Fact){
		"no ID":               func(f *Fact) { f.ID = "" },
		"an ID of the ledger": func(f *Fact) { f.ID = "void/x" },
		"no kind of actor":    func(f *Fact) { f.Actor.Kind = "" },
		"a phase":             func(f *Fact) { f.Phase = "Middle" },
		"no action":           func(f *Fact) { f.Action = "" },
		"a year":              func(f *Fact) { f.At = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) },
		"a digest":            func(f *Fact) { f.Stored = &Stored{Key: ItemKey(uid, "00"), Digest: "sha256:00"} },
		"a digest in capitals": func(f *Fact) {
			up := "sha256:" + strings.ToUpper(d[7:])
			f.Stored = &Stored{Key: ItemKey(uid, up), Digest: up}
		},
		"a key elsewhere":  func(f *Fact) { f.Stored = &Stored{Key: "../" + ItemKey(uid, d), Digest: d} },
		"a negative size":  func(f *Fact) { f.Stored = &Stored{Key: ItemKey(uid, d), Digest: d, Size: -1} },
		"a digest of text": func(f *Fact) { f.Stored = &Stored{Key: ItemKey(uid, d), Digest: d, PlainDigest: "x"} },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			l, bad := open(t, m), fact("a")
			change(&bad)
			if added, err := l.Append(t.Context(), operator, []Fact{fact("good"), bad}, start); err == nil || added != 0 || len(m.objects) != 0 {
				t.Errorf("%d were recorded, error %v", added, err)
			}
		})
	}
}

func TestIDsThatDoNotFitStayUnique(t *testing.T) {
	l := open(t, newMemory())
	long := strings.Repeat("x", 400)
	var list []Fact
	for _, id := range []string{long + "1", long + "2", "a\x01", "a\x02", "plain"} {
		list = append(list, fact(id))
	}
	add(t, l, list...)
	if added, err := l.Append(t.Context(), operator, list, start); added != 0 || err != nil {
		t.Errorf("recorded twice: %d, %v", added, err)
	}
	for _, f := range list {
		if !l.Has(f.ID) {
			t.Errorf("the ledger does not know %.20q", f.ID)
		}
	}
	for _, id := range ids(l) {
		if utf8.RuneCountInString(id) > MaxID {
			t.Errorf("an ID has %d characters", len(id))
		}
	}
}

func FuzzCanonicalForm(f *testing.F) {
	f.Add("a", "web", "say \"no\"\x1b[2J", int64(1), int64(1789457489), int64(5))
	f.Add("é\u202e", "\xff", "\\", int64(-4), int64(-1), int64(0))
	f.Fuzz(func(t *testing.T, id, name, detail string, seq, at, size int64) {
		if at < -62135596800 || at > 253402300799 { // the years that can be written
			return
		}
		e := Entry{Seq: seq, RecordedAt: time.Unix(at, 5), Previous: id, Fact: Fact{
			ID: id, At: time.Unix(at, 0), Actor: Actor{Kind: ActorPerson, Name: name}, Action: detail, Subject: Subject{Kind: name, Name: id}, Detail: detail,
			Stored: &Stored{Key: name, Digest: id, Size: size, PlainSize: size, Encrypted: size > 0, Name: detail},
		}}
		line := AppendEntry(nil, &e)
		if len(line) > maxLine {
			return
		}
		if !json.Valid(line) || !utf8.Valid(line) || bytes.ContainsFunc(line, unfit) {
			t.Fatalf("%q is not a line of JSON", line)
		}
		got, err := parseEntry(line)
		if err != nil {
			t.Fatalf("%q cannot be read: %v", line, err)
		}
		if again := AppendEntry(nil, &got); !bytes.Equal(again, line) {
			t.Fatalf("%q becomes %q", line, again)
		}
	})
}

func FuzzParseEntry(f *testing.F) {
	e := Entry{Seq: 1, RecordedAt: start, Previous: genesis(uid), Fact: fact("a")}
	f.Add(strings.TrimSuffix(string(AppendEntry(nil, &e)), "}"))
	f.Fuzz(func(t *testing.T, line string) {
		for _, text := range []string{line, sealed(line + "}")} {
			e, err := parseEntry([]byte(text))
			if err == nil && string(AppendEntry(nil, &e)) != text {
				t.Fatalf("%q was read and is not canonical", text)
			}
		}
	})
}
