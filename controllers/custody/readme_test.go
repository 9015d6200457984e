package custody

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// commands are the lines of README.txt that are meant for a shell: those under "how to check it" that are indented by four spaces.
func commands(t testing.TB, readme []byte) string {
	t.Helper()
	_, text, _ := strings.Cut(string(readme), "HOW TO CHECK IT")
	text, _, _ = strings.Cut(text, "ENCRYPTED ITEMS")
	var out []string
	for line := range strings.Lines(text) {
		if command, indented := strings.CutPrefix(line, "    "); indented {
			out = append(out, command)
		}
	}
	if len(out) < 40 {
		t.Fatalf("README.txt has %d lines for a shell", len(out))
	}
	return strings.Join(out, "")
}

// writeFiles unpacks into an empty folder.
func writeFiles(t testing.TB, u unpacked) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range u {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// need skips a test on a machine that lacks what an investigator's has.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
}

func shell(t testing.TB, dir, script string) (output string, good bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// Whoever follows README.txt finds a good archive good.
func TestTheInstructionsOfTheReadmeAcceptAGoodArchive(t *testing.T) {
	need(t, "sh", "sha256sum", "openssl", "tar")
	m, last := sample(t)
	a := newAuthority(t)
	l := open(t, m)
	removed := fact("gone")
	removed.Stored = m.put("to be removed", "x")
	removal := fact("removal")
	removal.Action, removal.Stored = ActionRemoveEvidence, removed.Stored
	hostile := fact("hostile")
	hostile.Detail = `\","stored":{"key":"x","digest":"sha256:` + strings.Repeat("0", 64) + `"}` + "$(touch x)`touch x`'\"*"
	add(t, l, removed, removal, hostile)
	delete(m.objects, removed.Stored.Key)
	h, err := l.Sign(t.Context(), newKey(t), start, TimestampBy(&Timestamper{URL: a.URL}))
	if err != nil {
		t.Fatal(err)
	}
	archive := exported(t, m)

	// The archive is unpacked by the system's tar, as README.txt says.
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "FILE")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, good := shell(t, dir, "tar -tf "+file+" | sort | uniq -d; tar -xf "+file); !good || out != "" {
		t.Fatalf("tar says: %s", out)
	}
	script := commands(t, unpack(t, archive)[0].content)
	out, good := shell(t, dir, script)
	if !good {
		t.Fatalf("a good archive is refused:\n%s", out)
	}
	for _, want := range []string{
		"check 1, files: good", "check 2, ledger: good", "check 3, signatures: good", "check 4, items: good", "entry 9 is the last one; its digest is " + h.Digest,
		"the last signed one is that of heads/000000000009.json", "heads/000000000006.json is signed by the key " + last.KeyID, "Time stamp: Sep 14 07:32:29 2026 GMT", imprintOf(t, &h),
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the checks do not print %q:\n%s", want, out)
		}
	}

	// The check of a time stamp that needs a certificate of the reader's.
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pemOf(a.root), 0o600); err != nil {
		t.Fatal(err)
	}
	check := `head=heads/000000000009.json
		sed -n 's/.*"timestamp":"\([^"]*\)".*/\1/p' "$head" | base64 -d > token
		sed 's/.*"signature":"\([^"]*\)".*/\1/' "$head" | base64 -d > signature
		openssl ts -verify -token_in -in token -data signature -attime 1789457489 -CAfile ` + roots
	if !bytes.Contains(readme(uid, nil), []byte("  openssl ts -verify -token_in -in token -data signature -CAfile roots.pem\n")) {
		t.Error("README.txt has another command to check a time stamp")
	}
	if out, good := shell(t, dir, check); !good {
		t.Errorf("openssl does not accept the time stamp:\n%s", out)
	}
}

// Whoever follows README.txt finds out what was changed, even by somebody who made new sums.
func TestTheInstructionsOfTheReadmeRefuseADamagedArchive(t *testing.T) {
	need(t, "sh", "sha256sum", "openssl")
	m, _ := sample(t)
	archive := exported(t, m)
	edit := func(prefix string, change func([]byte) []byte) func(unpacked) unpacked {
		return func(u unpacked) unpacked {
			i := u.index(t, prefix)
			u[i].content = change(bytes.Clone(u[i].content))
			return u
		}
	}
	resum := func(u unpacked) unpacked { return unpack(t, u.pack(t)) }
	cases := map[string]struct {
		change func(unpacked) unpacked
		want   string
	}{
		"a byte of an item":      {edit(itemsFolder, func(b []byte) []byte { b[0] ^= 1; return b }), "check 1, files: BAD"},
		"a byte of the ledger":   {edit(ledgerFile, func(b []byte) []byte { b[500] ^= 1; return b }), "check 1, files: BAD"},
		"a byte of the manifest": {edit(manifestFile, func(b []byte) []byte { b[50] ^= 1; return b }), "check 1, files: BAD"},
		"a file less":            {func(u unpacked) unpacked { return slices.Delete(u, 1, 2) }, "check 1, files: BAD"},
		"a file more":            {func(u unpacked) unpacked { return append(u, file{"items/x", nil}) }, "check 1, files: BAD"},
		"a line less, with new sums": {func(u unpacked) unpacked {
			return resum(edit(ledgerFile, func(b []byte) []byte { return b[bytes.IndexByte(b, '\n')+1:] })(u))
		}, "ledger.jsonl, line 1 does not follow"},
		"an edited line, with new sums": {func(u unpacked) unpacked {
			return resum(edit(ledgerFile, func(b []byte) []byte { return bytes.Replace(b, []byte("web-b"), []byte("web-x"), 1) })(u))
		}, "ledger.jsonl, line 4 does not follow"},
		"the last line cut off, with new sums": {func(u unpacked) unpacked {
			return resum(edit(ledgerFile, func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] })(u))
		}, "check 2, ledger: BAD"},
		"an edited last line, with new sums": {func(u unpacked) unpacked {
			return resum(edit(ledgerFile, func(b []byte) []byte { return bytes.Replace(b, []byte("web-c"), []byte("web-x"), 1) })(u))
		}, "heads/000000000006.json is not about line 6"},
		"another signature, with new sums": {func(u unpacked) unpacked {
			return resum(edit("heads/000000000006", func(b []byte) []byte { return bytes.Replace(b, []byte(`"at":"2026`), []byte(`"at":"2025`), 1) })(u))
		}, "check 3, signatures: BAD"},
		"another key, with new sums": {func(u unpacked) unpacked {
			return resum(edit(keysFolder, func([]byte) []byte { return PublicPEM(newKey(t).PublicKey()) })(u))
		}, "check 3, signatures: BAD"},
		"no heads, with new sums": {func(u unpacked) unpacked {
			return resum(slices.DeleteFunc(u, func(f file) bool { return strings.HasPrefix(f.name, headsFolder) }))
		}, "check 2, ledger: BAD"},
		"an item less, with new sums": {func(u unpacked) unpacked {
			i := u.index(t, itemsFolder)
			return resum(slices.Delete(u, i, i+1))
		}, "is missing"},
		"another item, with new sums": {func(u unpacked) unpacked {
			return resum(edit(itemsFolder, func(b []byte) []byte { b[0] ^= 1; return b })(u))
		}, "was changed"},
		"an item more, with new sums": {func(u unpacked) unpacked {
			return resum(slices.Insert(u, len(u)-1, file{"items/" + strings.TrimPrefix(digest([]byte("x")), "sha256:"), []byte("x")}))
		}, "no entry names items/"},
	}
	script := commands(t, unpack(t, archive)[0].content)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			out, good := shell(t, writeFiles(t, tc.change(unpack(t, archive))), script)
			if good || !strings.Contains(out, tc.want) {
				t.Errorf("accepted: %v; want %q in:\n%s", good, tc.want, out)
			}
		})
	}
}
