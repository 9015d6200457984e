package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// width is the number of columns that text is wrapped at. Names of objects may be longer.
const width = 100

func say(format string, args ...any) {
	for _, line := range wrap(fmt.Sprintf(format, args...), width-2) {
		fmt.Println("  " + line)
	}
}

func blank() { fmt.Println() }

func line() string { return strings.Repeat("-", width) }

func heading(number int, title string) {
	fmt.Printf("\n%s\n%d. %s\n%s\n", line(), number, title, line())
}

// wrap breaks a text at spaces. A word that is longer than a line gets a line of its own.
func wrap(text string, limit int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= limit:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// clip shortens a text to a number of characters.
func clip(text string, limit int) string {
	if runes := []rune(text); len(runes) > limit {
		return string(runes[:limit-3]) + "..."
	}
	return text
}

// quote prints what somebody else said, as it was said; lines that are too long are wrapped.
func quote(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if utf8.RuneCountInString(line) <= width+16 {
			fmt.Println("    " + line)
			continue
		}
		for _, part := range wrap(line, width-4) {
			fmt.Println("    " + part)
		}
	}
}

// table prints rows in columns; the first row is the heading.
func table(rows [][]string) {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, "    "+strings.Join(row, "\t"))
	}
	_ = w.Flush() // a strings.Builder does not fail
	for line := range strings.SplitSeq(strings.TrimRight(out.String(), "\n"), "\n") {
		fmt.Println(strings.TrimRight(line, " "))
	}
}

// busy says what is being done, does it, and says how long it took.
func busy(what string, do func() error) error {
	fmt.Printf("  %s ... ", what)
	started := time.Now()
	if err := do(); err != nil {
		fmt.Println("failed")
		return err
	}
	fmt.Println(seconds(time.Since(started)))
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
