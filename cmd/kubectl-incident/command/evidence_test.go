package command

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/store"
)

const incidentUID = "0f9a1c52-8f5e-4a62-9d0b-6f1c2f3e4d5a"

var started = time.Date(2026, 9, 14, 7, 31, 29, 0, time.UTC)

// evidenceStore is a directory with a ledger of two entries, the first one with an item, and a head. It returns what the Incident knows of it.
func evidenceStore(t *testing.T) (dir string, known *v1alpha1.CustodyStatus) {
	t.Helper()
	dir = t.TempDir()
	s, err := store.Open(t.Context(), "file://"+dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	o, err := s.PutItem(t.Context(), incidentUID, strings.NewReader("one line\n"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := custody.Open(t.Context(), s, incidentUID)
	if err != nil {
		t.Fatal(err)
	}
	facts := []custody.Fact{
		{ID: "log", Actor: custody.Actor{Kind: custody.ActorOperator}, Action: "Collected", Subject: custody.Subject{Kind: "Pod", Name: "web"}, Stored: &custody.Stored{
			Key: o.Key, Digest: o.Digest, Size: o.Size, PlainDigest: o.PlainDigest, PlainSize: o.PlainSize, Encrypted: o.Encrypted, Name: "\x1b[2Jlogs", MediaType: "text/plain",
		}},
		{ID: "seen", Actor: custody.Actor{Kind: custody.ActorObservation}, Action: "Contained=True", Subject: custody.Subject{Kind: "Incident"}},
	}
	key, err := custody.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), key, facts, started); err != nil {
		t.Fatal(err)
	}
	h, err := l.Sign(t.Context(), key, started)
	if err != nil {
		t.Fatal(err)
	}
	return dir, &v1alpha1.CustodyStatus{Store: "file://" + dir, Entries: h.Seq, Digest: h.Digest, KeyID: h.KeyID, Signature: h.Signature, SignedAt: metav1.NewTime(h.At)}
}

func anIncident(known *v1alpha1.CustodyStatus) *v1alpha1.Incident {
	return &v1alpha1.Incident{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "Incident"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "security", Name: "leak", UID: types.UID(incidentUID)},
		Status: v1alpha1.IncidentStatus{Custody: known, Evidence: []v1alpha1.EvidenceItem{
			{ID: "logs-1", Type: v1alpha1.EvidenceLogs, Subject: v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web"}, State: v1alpha1.EvidenceCollected, Size: 5 << 20, Digest: "sha256:0123456789abcdef0123", Location: "incidents/0f9a/items/0123456789abcdef0123", TakenAt: metav1.NewTime(started)},
			{ID: "snap-1", Type: v1alpha1.EvidenceVolumeSnapshot, Subject: v1alpha1.ObjectRef{Kind: "PersistentVolumeClaim", Namespace: "shop", Name: "data"}, State: v1alpha1.EvidenceGap, Message: "the driver says: \x1b]0;owned\a\u202e" + strings.Repeat("x", 200)},
		}},
	}
}

// cluster is an API server that has one Incident. The arguments make the command line use it.
func cluster(t *testing.T, incident *v1alpha1.Incident) (arguments []string) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/apis/containment.cofferdam.dev/v1alpha1/namespaces/security/incidents/leak" || r.Method != http.MethodGet {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: 404, Message: "not found \x1b[31m"})
			return
		}
		_ = json.NewEncoder(w).Encode(incident)
	}))
	t.Cleanup(server.Close)
	return []string{"--server", server.URL, "-n", "security"}
}

func checkPrintable(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for _, r := range text {
			if !unicode.IsPrint(r) && r != '\n' {
				t.Errorf("%U is printed", r)
			}
		}
	}
}

func TestEvidenceList(t *testing.T) {
	known := &v1alpha1.CustodyStatus{Store: "s3://evidence\x1b[31m", Entries: 145, Digest: "sha256:ab", KeyID: "cd", SignedAt: metav1.NewTime(started), AttestedAt: metav1.NewTime(started.Add(time.Second))}
	flags := cluster(t, anIncident(known))
	got := run("", append([]string{"evidence", "list", "leak"}, flags...)...)
	const ledger = `
Ledger:  145 entries; the last one has the digest sha256:ab
Signed:  at 2026-09-14T07:31:29Z by the key cd, with a time stamp of 2026-09-14T07:31:30Z
Store:   s3://evidence�[31m
`
	want := `TYPE             SUBJECT                           STATE       SIZE      TAKEN AT               DIGEST         MESSAGE
Logs             Pod/shop/web                      Collected   5.0 MiB   2026-09-14T07:31:29Z   0123456789ab
VolumeSnapshot   PersistentVolumeClaim/shop/data   Gap         -         -                      -              the driver says: �]0;owned��` + strings.Repeat("x", 31) + "…\n" + ledger
	if diff := cmp.Diff(result{out: want}, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got = run("", append([]string{"evidence", "list", "leak", "-o", "wide"}, flags...)...)
	want = `TYPE             SUBJECT                           STATE       SIZE      TAKEN AT               DIGEST         MESSAGE                                                        ITEM     LOCATION
Logs             Pod/shop/web                      Collected   5.0 MiB   2026-09-14T07:31:29Z   0123456789ab                                                                  logs-1   incidents/0f9a/items/0123456789abcdef0123
VolumeSnapshot   PersistentVolumeClaim/shop/data   Gap         -         -                      -              the driver says: �]0;owned��` + strings.Repeat("x", 31) + `…   snap-1   -
` + ledger
	if diff := cmp.Diff(result{out: want}, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("wide (-want +got):\n%s", diff)
	}
	asYAML, asJSON := run("", append([]string{"evidence", "list", "inc/leak", "-o", "yaml"}, flags...)...), run("", append([]string{"evidence", "list", "leak", "-o", "json"}, flags...)...)
	checkPrintable(t, asYAML.out, asJSON.out)
	var fromYAML, fromJSON evidenceList
	if err := yaml.UnmarshalStrict([]byte(asYAML.out), &fromYAML); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(asJSON.out), &fromJSON); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fromYAML, fromJSON); diff != "" || len(fromJSON.Items) != 2 || fromJSON.Items[0].Size != 5<<20 || fromJSON.Custody.Entries != 145 || fromJSON.Incident.UID != incidentUID {
		t.Errorf("%+v\n%s", fromJSON, diff)
	}
}

func TestEvidenceListOfAnIncidentWithout(t *testing.T) {
	bare := anIncident(nil)
	bare.Status.Evidence = nil
	got := run("", append([]string{"evidence", "list", "leak"}, cluster(t, bare)...)...)
	if got.code != 0 || got.out != "Incident security/leak has no evidence yet.\n\nNothing is in the ledger yet.\n" {
		t.Errorf("%+v", got)
	}
}

func TestExportAndVerify(t *testing.T) {
	_, known := evidenceStore(t)
	file := filepath.Join(t.TempDir(), "leak's.tar")
	flags := cluster(t, anIncident(known))
	got := run("", append([]string{"evidence", "export", "leak", "-o", file}, flags...)...)
	if got.code != 0 || got.err != "" || !strings.Contains(got.out, "2 entries, 1 items\n") {
		t.Fatalf("%+v", got)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	checkOnly(t, filepath.Dir(file), "leak's.tar")

	// The command that was printed is a command for a shell.
	lines := strings.Split(got.out, "\n")
	const beginning = "  kubectl incident evidence verify '"
	if !strings.HasPrefix(lines[2], beginning) || !strings.HasSuffix(lines[2], ` --key-id `+known.KeyID+` --head 2:`+known.Digest) || !strings.Contains(lines[2], `leak'\''s.tar'`) {
		t.Errorf("the command is %q", lines[2])
	}
	got = run("", "evidence", "verify", file, "--key-id", known.KeyID, "--head", "2:"+known.Digest)
	if got.code != 0 || got.err != "" || !strings.HasPrefix(got.out, "GENUINE: ") {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{"Incident:  security/leak, UID " + incidentUID, "Ledger:    2 entries", "Signed:    up to entry 2 of 2", "Heads:     1, of entry 2 at 2026-09-14T07:31:29Z", "  Signed by the key " + known.KeyID + ": entries 1 to 2\n", "Items:     1, 9 B; 0 encrypted"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("the report lacks %q:\n%s", want, got.out)
		}
	}
	checkPrintable(t, got.out)
}

func TestVerifyStandardInput(t *testing.T) {
	_, known := evidenceStore(t)
	file := filepath.Join(t.TempDir(), "leak.tar")
	if got := run("", append([]string{"evidence", "export", "leak", "-o", file}, cluster(t, anIncident(known))...)...); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	archive, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := run(string(archive), "evidence", "verify", "-"); got.code != 0 || !strings.HasPrefix(got.out, "GENUINE: standard input\n") || !strings.Contains(got.out, "No key was given") {
		t.Errorf("%+v", got)
	}
	at := bytes.Index(archive, []byte("one line"))
	archive[at] ^= 1
	got := run(string(archive), "evidence", "verify", "-")
	if got.code != 1 || got.err != "" || !strings.HasPrefix(got.out, "NOT GENUINE: standard input\nFirst: items/") || !strings.Contains(got.out, "entry 1, byte ") {
		t.Errorf("%+v", got)
	}
}

// checkOnly checks that a folder has this file and nothing else, such as a part of an archive.
func checkOnly(t *testing.T, dir string, want ...string) {
	t.Helper()
	var got []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// There are as many heads as additions to the ledger: what is told of them is what differs between them.
func TestHeadsInAReport(t *testing.T) {
	at := func(seq int64) time.Time { return started.Add(time.Duration(seq) * time.Second) }
	head := func(seq int64, key string) custody.HeadReport {
		return custody.HeadReport{Seq: seq, At: at(seq), KeyID: key}
	}
	stamped := func(h custody.HeadReport, stamp custody.TimestampReport) custody.HeadReport {
		stamp.Time = h.At
		h.Timestamp = &stamp
		return h
	}
	ordinary := func() (heads []custody.HeadReport) {
		for seq := int64(2); seq <= 500; seq += 2 {
			heads = append(heads, head(seq, "aa"))
		}
		return heads
	}
	changed := ordinary()
	for i := range changed[100:] {
		changed[100+i].KeyID = "bb"
	}
	back := []custody.HeadReport{head(1, "aa"), head(5, "bb"), head(6, "aa")}
	stamps := ordinary()
	stamps[0] = stamped(stamps[0], custody.TimestampReport{Authority: "tsa\x1b[2J", Issuer: "ca", Trusted: true})
	stamps[9] = stamped(stamps[9], custody.TimestampReport{})

	const many = "Heads:     250, the first of entry 2 at 2026-09-14T07:31:31Z, the last of entry 500 at 2026-09-14T07:39:49Z\n"
	for name, tc := range map[string]struct {
		heads []custody.HeadReport
		want  string
	}{
		"none":            {nil, ""},
		"one":             {[]custody.HeadReport{head(1, "aa")}, "Heads:     1, of entry 1 at 2026-09-14T07:31:30Z\n  Signed by the key aa: entry 1\n"},
		"many":            {ordinary(), many + "  Signed by the key aa: entries 1 to 500\n"},
		"a change of key": {changed, many + "  Signed by the key aa: entries 1 to 200\n  then by the key bb: entries 201 to 500\n"},
		"a key that comes back": {back, "Heads:     3, the first of entry 1 at 2026-09-14T07:31:30Z, the last of entry 6 at 2026-09-14T07:31:35Z\n" +
			"  Signed by the key aa: entry 1\n  then by the key bb: entries 2 to 5\n  then by the key aa: entry 6\n"},
		"time stamps": {stamps, many + "  Signed by the key aa: entries 1 to 500\n" +
			"  Time stamp of 2026-09-14T07:31:31Z on the head of entry 2, by tsa�[2J, certified by ca: the given roots vouch for it\n" +
			"  Time stamp of 2026-09-14T07:31:49Z on the head of entry 20, by an authority whose certificate is not in it: whether it can be trusted was not established\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			p := &printer{w: &out}
			writeHeads(p, tc.heads)
			if diff := cmp.Diff(tc.want, out.String()); diff != "" || p.err != nil {
				t.Errorf("%v (-want +got):\n%s", p.err, diff)
			}
		})
	}
}

// An archive that was made to have no end of keys does not scroll away the first and the last of them.
func TestVeryManyKeysAreBounded(t *testing.T) {
	var heads []custody.HeadReport
	for seq := int64(1); seq <= 1000; seq++ {
		heads = append(heads, custody.HeadReport{Seq: seq, At: started, KeyID: strconv.FormatInt(seq, 10)})
	}
	var out bytes.Buffer
	p := &printer{w: &out}
	writeHeads(p, heads)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 102 {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	got := []string{lines[1], lines[50], lines[51], lines[52], lines[101]}
	want := []string{"  Signed by the key 1: entry 1", "  then by the key 50: entry 50", "  … 900 keys are left out here …", "  then by the key 951: entry 951", "  then by the key 1000: entry 1000"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestExportWithoutACluster(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	dir, known := evidenceStore(t)
	file := filepath.Join(t.TempDir(), "leak.tar")
	got := run("", "evidence", "export", "--incident-uid", incidentUID, "--store", "file://"+dir, "-o", file)
	if got.code != 0 || got.err != "" || !strings.Contains(got.out, "with --key-id ID and --head ENTRIES:DIGEST") {
		t.Errorf("%+v", got)
	}
	if got := run("", "evidence", "verify", file, "--head", "2:"+strings.TrimPrefix(known.Digest, "sha256:")); got.code != 0 {
		t.Errorf("%+v", got)
	}
	if got := run("", "evidence", "verify", file, "--head", "3:"+known.Digest); got.code != 1 || !strings.Contains(got.out, "its end was removed") {
		t.Errorf("%+v", got)
	}
}

func TestAFileIsReplacedOnlyByForce(t *testing.T) {
	dir, _ := evidenceStore(t)
	file := filepath.Join(t.TempDir(), "leak.tar")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"evidence", "export", "--incident-uid", incidentUID, "--store", "file://" + dir, "-o", file}
	got := run("", args...)
	content, err := os.ReadFile(file)
	if got.code != 2 || !strings.Contains(got.err, "exists; choose another file, or replace it with --force") || string(content) != "mine" || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if got := run("", append(args, "--force")...); got.code != 0 {
		t.Errorf("%+v", got)
	}
	if got := run("", "evidence", "verify", file); got.code != 0 {
		t.Errorf("%+v", got)
	}
	checkOnly(t, filepath.Dir(file), "leak.tar")
}

// A file that appears while the archive is written is kept.
func TestAFileThatAppearsMeanwhileIsKept(t *testing.T) {
	dir := t.TempDir()
	o := &exportOptions{output: filepath.Join(dir, "out")}
	for name, content := range map[string]string{"out": "mine", "part": "archive"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.place(filepath.Join(dir, "part")); err == nil {
		t.Error("it was replaced")
	}
	o.force = true
	if err := o.place(filepath.Join(dir, "part")); err != nil {
		t.Error(err)
	}
	checkOnly(t, dir, "out")
}

func TestExportSaysWhatIsMissing(t *testing.T) {
	dir, known := evidenceStore(t)
	if err := os.RemoveAll(filepath.Join(dir, "incidents", incidentUID, "items")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "leak.tar")
	got := run("", append([]string{"evidence", "export", "leak", "-o", file}, cluster(t, anIncident(known))...)...)
	if got.code != 1 || !strings.HasPrefix(got.err, "WARNING: an item is missing: sha256:") || !strings.Contains(got.out, "2 entries, 0 items") {
		t.Errorf("%+v", got)
	}
	if got := run("", "evidence", "verify", file); got.code != 1 || !strings.Contains(got.out, "the item that entry 1 names is missing, as the manifest says") {
		t.Errorf("%+v", got)
	}
}

// A ledger that is damaged is exported all the same: it is what an investigator needs most.
func TestExportOfADamagedLedger(t *testing.T) {
	dir, known := evidenceStore(t)
	segments, err := filepath.Glob(filepath.Join(dir, "incidents", incidentUID, "ledger", "*.jsonl"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	content, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		content string
		entry   string
	}{
		"edited":              {strings.Replace(string(content), `"Contained=True"`, `"Contained=\u001b"`, 1), "entry 2"},
		"truncated":           {string(content[:strings.Index(string(content), "\n")+1]), "entry 2"},
		"first entry removed": {string(content[strings.Index(string(content), "\n")+1:]), "entry 1"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := os.Chmod(segments[0], 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(segments[0], []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "leak.tar")
			got := run("", append([]string{"evidence", "export", "leak", "-o", file}, cluster(t, anIncident(known))...)...)
			if got.code != 1 || !strings.HasPrefix(got.err, "WARNING: the ledger is damaged; what there is of it was exported") || !strings.Contains(got.err, tc.entry) || !strings.Contains(got.out, " 1 items") {
				t.Errorf("%+v", got)
			}
			checkPrintable(t, got.err, got.out)
			got = run("", "evidence", "verify", file)
			if first, _, _ := strings.Cut(got.out[strings.Index(got.out, "First: "):], "\n"); got.code != 1 || !strings.Contains(first, tc.entry+", byte ") {
				t.Errorf("%+v", got)
			}
			checkPrintable(t, got.out)
		})
	}
}

func TestExportSaysWhenTheLedgerIsNotTheOneThatTheIncidentKnows(t *testing.T) {
	_, known := evidenceStore(t)
	known.Entries = 7
	got := run("", append([]string{"evidence", "export", "leak", "-o", filepath.Join(t.TempDir(), "leak.tar")}, cluster(t, anIncident(known))...)...)
	if got.code != 1 || !strings.Contains(got.err, "WARNING: the ledger in the store is not the one that the Incident knows: ") || !strings.Contains(got.err, "its end was removed") {
		t.Errorf("%+v", got)
	}
}

// What somebody has written after the operator who can write to the store is exported as what it is.
func TestExportSaysWhenSomebodyElseHasSigned(t *testing.T) {
	dir, known := evidenceStore(t)
	s, err := store.Open(t.Context(), "file://"+dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	own, err := custody.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	l, err := custody.Open(t.Context(), s, incidentUID)
	if err != nil {
		t.Fatal(err)
	}
	fact := custody.Fact{ID: "forged", Actor: custody.Actor{Kind: custody.ActorOperator}, Action: "Seen", Subject: custody.Subject{Kind: "Pod"}}
	if _, err := l.Append(t.Context(), own, []custody.Fact{fact}, started); err != nil {
		t.Fatal(err)
	}
	file, id := filepath.Join(t.TempDir(), "leak.tar"), custody.KeyID(own.PublicKey())
	got := run("", append([]string{"evidence", "export", "leak", "-o", file}, cluster(t, anIncident(known))...)...)
	if got.code != 1 || !strings.Contains(got.err, "WARNING: the end of the ledger is signed by the key "+id) {
		t.Errorf("%+v", got)
	}
	got = run("", "evidence", "verify", file, "--key-id", known.KeyID)
	for _, want := range []string{"the last head is signed by the key " + id, "Signed by the key " + known.KeyID + ": entries 1 to 2", "then by the key " + id + ": entry 3"} {
		if got.code != 1 || !strings.Contains(got.out, want) {
			t.Errorf("verify does not say %q: %+v", want, got)
		}
	}
}

func TestEvidenceErrors(t *testing.T) {
	dir, known := evidenceStore(t)
	flags := cluster(t, anIncident(known))
	file := filepath.Join(t.TempDir(), "x.tar")
	empty := filepath.Join(t.TempDir(), "no-certificate")
	if err := os.WriteFile(empty, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	uid := []string{"--incident-uid", incidentUID}
	cases := map[string]struct {
		args []string
		want string
	}{
		"list nothing":            {[]string{"list"}, "say which incident is meant"},
		"list a pod":              {[]string{"list", "pod/web"}, "is not the name of an Incident"},
		"list an output":          {[]string{"list", "leak", "-o", "xml"}, "use table, wide, yaml or json"},
		"list what is not there":  {[]string{"list", "other"}, "reading Incident security/other"},
		"export nothing":          {[]string{"export", "-o", file}, "say which incident is meant"},
		"export nowhere":          {[]string{"export", "leak"}, "say which file to write"},
		"export to the terminal":  {[]string{"export", "leak", "-o", "-"}, "say which file to write"},
		"export from nowhere":     {append([]string{"export", "-o", file}, uid...), "has to be given with --store"},
		"export a UID":            {[]string{"export", "-o", file, "--incident-uid", "../..", "--store", "file://" + dir}, "is not the UID of an Incident"},
		"export another Incident": {[]string{"export", "-o", file, "--incident-uid", "a", "--store", "file://" + dir}, "the store has no ledger of this Incident"},
		"export a URL":            {[]string{"export", "-o", file, "--incident-uid", "a", "--store", "ftp://x"}, "opening the evidence store"},
		"export a directory that is not here": {[]string{"export", "-o", file, "--incident-uid", "a", "--store", "file:///nowhere/\x1b[2J"},
			"opening the evidence store"},
		"export the operator's directory": {[]string{"export", "-o", file, "--incident-uid", "a", "--store", "file:///nowhere/at/all"}, "is a directory that is not on this machine"},
		"export into nothing":             {append([]string{"export", "-o", filepath.Join(file, "x"), "--store", "file://" + dir}, uid...), "no such file or directory"},
		"verify nothing":                  {[]string{"verify"}, "say which archive to verify"},
		"verify what is not there":        {[]string{"verify", file}, "no such file"},
		"verify a directory":              {[]string{"verify", dir}, "is a directory"},
		"verify with a key":               {[]string{"verify", file, "--key-id", "x"}, "is not the id of a key"},
		"verify with a head":              {[]string{"verify", file, "--head", "5"}, "write it as NUMBER:sha256:DIGEST"},
		"verify with roots":               {[]string{"verify", file, "--roots", empty}, "has no certificate in PEM"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := run("", append(append([]string{"evidence"}, tc.args...), flags...)...)
			if got.code != 2 || got.out != "" || !strings.HasPrefix(got.err, "error: ") || !strings.Contains(got.err, tc.want) || strings.Count(got.err, "\n") != 1 {
				t.Errorf("%+v, want one line with %q", got, tc.want)
			}
			checkPrintable(t, got.err)
			if exists(file) {
				t.Error("there is a file")
			}
		})
	}
	if _, err := os.Stat("/nowhere"); err == nil {
		t.Error("a directory was made for a store that is not here")
	}
}

func TestAnArchiveThatIsNoneIsNotGenuine(t *testing.T) {
	for name, content := range map[string]string{"nothing": "", "text": "hello", "zeros": strings.Repeat("\x00", 4096), "escapes": strings.Repeat("\x1b[2J", 400)} {
		t.Run(name, func(t *testing.T) {
			got := run(content, "evidence", "verify", "-")
			if got.code != 1 || got.err != "" || !strings.HasPrefix(got.out, "NOT GENUINE: standard input\nFirst: ") {
				t.Errorf("%+v", got)
			}
			checkPrintable(t, got.out)
		})
	}
}

func TestAnExportTellsHowFarItIsEveryTwoSeconds(t *testing.T) {
	var errOut bytes.Buffer
	now := started
	o := &evidenceOptions{IOStreams: genericiooptions.IOStreams{ErrOut: &errOut}, now: func() time.Time { return now }}
	p := newProgress(o)
	for i := range int64(10) {
		p.tell("checking items", i<<20, 10<<20)
		now = now.Add(700 * time.Millisecond)
	}
	if want := "checking items: 3.0 MiB of 10.0 MiB\nchecking items: 6.0 MiB of 10.0 MiB\nchecking items: 9.0 MiB of 10.0 MiB\n"; errOut.String() != want {
		t.Errorf("%q", errOut.String())
	}
}

// Nothing is left behind when an export is interrupted.
func TestAnInterruptedExportLeavesNothing(t *testing.T) {
	dir, _ := evidenceStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := t.TempDir()
	var stdout, stderr bytes.Buffer
	code := Run(ctx, []string{"evidence", "export", "--incident-uid", incidentUID, "--store", "file://" + dir, "-o", filepath.Join(out, "x.tar")}, nil, &stdout, &stderr)
	if code != 2 || !strings.Contains(stderr.String(), "canceled") {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
	if left, err := fs.Glob(os.DirFS(out), "*"); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestSizes(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5<<30 + 1<<29: "5.5 GiB", 1 << 62: "4.0 EiB"} {
		if got := sizeOf(bytes); got != want {
			t.Errorf("%d bytes are %q", bytes, got)
		}
	}
}

func TestHelpOfEvidence(t *testing.T) {
	for name, want := range map[string]string{"list": "-o wide adds the name of each item", "export": "0  the archive is complete", "verify": "change of keys on a line of its own"} {
		if got := run("", "evidence", name, "--help"); got.code != 0 || !strings.Contains(got.out, want) {
			t.Errorf("%+v", got)
		}
	}
	if got := run("", "evidence"); got.code != 0 || !strings.Contains(got.out, "kubectl incident evidence [command]") {
		t.Errorf("%+v", got)
	}
}
