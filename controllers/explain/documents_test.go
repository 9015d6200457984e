package explain

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDocumentsOfAFile(t *testing.T) {
	object := func(name string) map[string]any { return map[string]any{"name": name} }
	type found struct {
		Line  int
		Value any
	}
	cases := map[string]struct {
		file, in string
		want     []found
		fails    string
	}{
		"one document":                       {in: "name: a\n", want: []found{{1, object("a")}}},
		"several":                            {in: "---\nname: a\n---\n# b\nname: b\n", want: []found{{2, object("a")}, {5, object("b")}}},
		"without a last line break":          {in: "name: a\n---\nname: b", want: []found{{1, object("a")}, {3, object("b")}}},
		"with line breaks of Windows":        {in: "name: a\r\n---\r\nname: b\r\n", want: []found{{1, object("a")}, {3, object("b")}}},
		"with a byte order mark":             {in: "\ufeffname: a", want: []found{{1, object("a")}}},
		"empty ones between":                 {in: "---\n---\n# nothing\n---\nname: a\n---\n", want: []found{{5, object("a")}}},
		"a marker with a comment":            {in: "name: a\n--- # b\nname: b\n", want: []found{{1, object("a")}, {2, object("b")}}},
		"a marker with content":              {in: "name: a\n--- {name: b}\n", want: []found{{1, object("a")}, {2, object("b")}}},
		"a marker inside a block of text":    {in: "name: |\n  x\n  ---\n  y\n", want: []found{{1, object("x\n---\ny\n")}}},
		"what only looks like a marker":      {in: "---x: 1\n", want: []found{{1, map[string]any{"---x": int64(1)}}}},
		"ends that are marked":               {in: "name: a\n...\nname: b\n...\n", want: []found{{1, object("a")}, {3, object("b")}}},
		"directives":                         {in: "%YAML 1.1\n---\nname: a\n", want: []found{{3, object("a")}}},
		"nothing":                            {in: ""},
		"whole numbers":                      {in: "a: 3\nb: 1.5\n", want: []found{{1, map[string]any{"a": int64(3), "b": 1.5}}}},
		"JSON":                               {file: "x.json", in: "\n{\"a\": 3}\n\n{\"a\": \n4}", want: []found{{2, map[string]any{"a": int64(3)}}, {4, map[string]any{"a": int64(4)}}}},
		"JSON by another name":               {in: "{\n\t\"a\": 3\n}\n{\n\t\"a\": 4\n}", want: []found{{1, map[string]any{"a": int64(3)}}, {4, map[string]any{"a": int64(4)}}}},
		"YAML that begins like JSON":         {in: "{a: 3}\n---\n{a: 4}\n", want: []found{{1, map[string]any{"a": int64(3)}}, {3, map[string]any{"a": int64(4)}}}},
		"a list":                             {in: "- a\n", want: []found{{1, []any{"a"}}}},
		"a bracket that is not closed":       {in: "a: b\n---\nc: 1\nd: [\n", fails: "x.yaml:"},
		"a tab":                              {in: "a: 1\nb:\n\tc: 1\n", fails: "x.yaml:3: this is not YAML: line 3:"},
		"a tab in a later document":          {in: "a: 1\n---\nb:\n\tc: 1\n", fails: "x.yaml:4: this is not YAML: line 4:"},
		"a field that is there twice":        {in: "a: 1\n---\nb: 1\nc: 1\nb: 2\n", fails: `x.yaml:5: this is not YAML: unmarshal errors: line 5: key "b" already set in map`},
		"JSON with an error":                 {file: "x.json", in: "{\"a\": 3}\n{\"a\": }", fails: "x.json:2: this is not JSON"},
		"JSON that ends too early":           {file: "x.json", in: "{\"a\": 3}\n{\"a\": ", fails: "x.json:"},
		"text that is not UTF-8":             {in: "\xff\xfea\x00", fails: "x.yaml: this is not text in UTF-8"},
		"YAML in a file that says it's JSON": {file: "x.json", in: "a: 3", fails: "x.json:1: this is not JSON"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.file == "" {
				tc.file = "x.yaml"
			}
			documents, err := parse(tc.file, []byte(tc.in))
			if tc.fails != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.fails) {
					t.Fatalf("error %v, want %q", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []found
			for _, d := range documents {
				got = append(got, found{d.line, d.value})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("documents mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// write makes files below a new folder, given as path and content in turn, and returns the folder.
func write(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(root, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFoldersAreReadWithAllThatIsBelowThem(t *testing.T) {
	root := write(t, "a.yaml", "a", "b/c.yml", "c", "b/d/e.JSON", "1", "b/notes.txt", "[", "b/f.yaml~", "[", "plain", "p")
	documents, err := readDocuments([]string{root, filepath.Join(root, "plain"), "-"}, strings.NewReader("s"))
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	for _, d := range documents {
		got = append(got, d.value)
	}
	if diff := cmp.Diff([]any{"a", "c", int64(1), "p", "s"}, got); diff != "" {
		t.Errorf("documents mismatch (-want +got):\n%s", diff)
	}
}

func TestLinksNeverHideAnything(t *testing.T) {
	// This is how a ConfigMap is mounted.
	mounted := write(t, "..2026/a.yaml", "a")
	outside := write(t, "b.yaml", "b")
	link := func(to, from string) {
		t.Helper()
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	link("..2026", filepath.Join(mounted, "..data"))
	link("..data/a.yaml", filepath.Join(mounted, "a.yaml"))
	documents, err := readDocuments([]string{mounted}, nil)
	if err != nil || len(documents) == 0 {
		t.Errorf("a folder with links within itself: %d documents, %v", len(documents), err)
	}
	link(mounted, filepath.Join(outside, "alias"))
	if _, err := readDocuments([]string{outside}, nil); err == nil || !strings.Contains(err.Error(), "is a link to a folder elsewhere") {
		t.Errorf("a link to another folder: %v", err)
	}
	if documents, err = readDocuments([]string{filepath.Join(outside, "alias")}, nil); err != nil || len(documents) == 0 {
		t.Errorf("a link that is named itself: %d documents, %v", len(documents), err)
	}
	link("nowhere", filepath.Join(mounted, "gone.yaml"))
	if _, err := readDocuments([]string{mounted}, nil); err == nil {
		t.Error("a link that leads nowhere was passed over")
	}
}
