package explain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// document is one object of a file, of whatever shape.
type document struct {
	// file and line say where it begins.
	file  string
	line  int
	value any
}

func (d document) at() string { return fmt.Sprintf("%s:%d", d.file, d.line) }

// stdin is the path that stands for the standard input.
const stdin = "-"

// readDocuments reads files, and folders with all that is below them. What is named itself is read whatever its extension; in folders .yaml, .yml and .json are.
func readDocuments(paths []string, in io.Reader) ([]document, error) {
	var out []document
	for _, path := range paths {
		if path == stdin {
			content, err := io.ReadAll(in)
			if err != nil {
				return nil, fmt.Errorf("reading the standard input: %w", err)
			}
			found, err := parse("standard input", content)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
			continue
		}
		files, err := filesBelow(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("reading what to explain from: %w", err)
			}
			found, err := parse(file, content)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		}
	}
	return out, nil
}

// filesBelow are the files that a path stands for.
func filesBelow(root string) ([]string, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("finding what to explain from: %w", err)
	}
	if !info.IsDir() {
		return []string{root}, nil
	}
	// The walk does not follow the root if it is a link.
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, fmt.Errorf("finding what to explain from: %w", err)
	}
	var out []string
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if entry.Type()&fs.ModeSymlink != 0 {
			if target, err := os.Stat(path); err == nil && target.IsDir() {
				return linkedFolder(root, path)
			}
		}
		if slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(path))) {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("finding what to explain from: %w", err)
	}
	return out, nil
}

// linkedFolder refuses a link to a folder outside the root: it is not followed, and what it holds may matter.
func linkedFolder(root, path string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if within, err := filepath.Rel(root, target); err == nil && filepath.IsLocal(within) {
		return nil // read where it is
	}
	return fmt.Errorf("%s is a link to a folder elsewhere, which is not followed; name that folder with -f too", path)
}

// parse reads the documents of a file. Empty ones are left out.
func parse(file string, content []byte) ([]document, error) {
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	if !utf8.Valid(content) {
		return nil, fmt.Errorf("%s: this is not text in UTF-8, and so nobody knows what it says; convert it", file)
	}
	if isJSON := strings.EqualFold(filepath.Ext(file), ".json"); isJSON || bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		out, err := parseJSON(file, content)
		if isJSON || err == nil {
			return out, err
		}
	}
	return parseYAML(file, content)
}

func parseJSON(file string, content []byte) ([]document, error) {
	var out []document
	decoder := json.NewDecoder(bytes.NewReader(content))
	for {
		var raw json.RawMessage
		start := decoder.InputOffset()
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			at := decoder.InputOffset()
			if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
				at = syntax.Offset
			}
			return nil, fmt.Errorf("%s:%d: this is not JSON: %w", file, lineAt(content, at), err)
		}
		start += int64(len(content[start:]) - len(bytes.TrimLeft(content[start:], " \t\r\n")))
		d := document{file: file, line: lineAt(content, start)}
		// Whole numbers stay whole, as the API server has them.
		if err := utiljson.Unmarshal(raw, &d.value); err != nil {
			return nil, fmt.Errorf("%s: this is not JSON: %w", d.at(), err)
		}
		out = append(out, d)
	}
}

// lineAt is the line, counted from 1, of a place in the content.
func lineAt(content []byte, offset int64) int {
	return 1 + bytes.Count(content[:min(offset, int64(len(content)))], []byte("\n"))
}

func parseYAML(file string, content []byte) ([]document, error) {
	var out []document
	for _, part := range splitYAML(content) {
		raw, err := yaml.YAMLToJSONStrict(part.text)
		if err != nil {
			return nil, yamlError(file, part.line, err)
		}
		d := document{file: file, line: part.line + blankLines(part.text)}
		if err := utiljson.Unmarshal(raw, &d.value); err != nil {
			return nil, fmt.Errorf("%s: this cannot be read: %w", d.at(), err)
		}
		if d.value != nil {
			out = append(out, d)
		}
	}
	return out, nil
}

// part is the text of one document of a YAML stream; line is its first line, and ended says that its last one is the marker of its end.
type part struct {
	line  int
	text  []byte
	ended bool
}

// splitYAML splits a stream into documents as YAML 1.2 does, §9.2: one begins with a marker, which stays with it together with the directives before it, or after the end of the one before.
func splitYAML(content []byte) []part {
	var out []part
	current, complete := part{line: 1}, false
	for i, line := range bytes.SplitAfter(content, []byte("\n")) {
		begins := isMarker(line, "---")
		if current.ended || begins && complete {
			out = append(out, current)
			current, complete = part{line: i + 1}, false
		}
		current.text = append(current.text, line...)
		current.ended = isMarker(line, "...")
		complete = complete || begins || saysSomething(line)
	}
	return append(out, current)
}

// saysSomething says whether the line is more than a comment or a directive.
func saysSomething(line []byte) bool {
	trimmed := bytes.TrimSpace(line)
	return len(trimmed) > 0 && trimmed[0] != '#' && line[0] != '%'
}

// isMarker says whether the line is the marker. Within a document no line can be, not even in a block of text, which is indented.
func isMarker(line []byte, marker string) bool {
	rest, found := bytes.CutPrefix(line, []byte(marker))
	return found && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n"))
}

// blankLines counts the lines before the first that says something.
func blankLines(text []byte) int {
	n := 0
	for line := range bytes.Lines(text) {
		if saysSomething(line) && !bytes.Equal(bytes.TrimSpace(line), []byte("---")) {
			break
		}
		n++
	}
	return n
}

var lineNumber = regexp.MustCompile(`line (\d+)`)

// yamlError names the line in the file: the parser counts from the beginning of the document.
func yamlError(file string, first int, err error) error {
	line := first
	message := lineNumber.ReplaceAllStringFunc(err.Error(), func(found string) string {
		n, convErr := strconv.Atoi(strings.TrimPrefix(found, "line "))
		if convErr != nil {
			return found
		}
		if line == first {
			line = first + n - 1
		}
		return fmt.Sprintf("line %d", first+n-1)
	})
	message = strings.TrimPrefix(strings.Join(strings.Fields(message), " "), "yaml: ")
	return fmt.Errorf("%s:%d: this is not YAML: %s", file, line, message)
}
