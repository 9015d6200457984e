package route

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Bounds of texts that are made from objects, which anybody may fill.
const (
	// maxItems is how many ports, hosts or parents a detail names before it counts the others.
	maxItems = 4
	// maxName bounds names, in characters. A kind and a namespace (at most 63 each) with a name (at most 253) fit, as the API server validates them.
	maxName = 400
	// maxText bounds a detail, in characters.
	maxText = 600
)

// clean makes a text fit for a terminal and for a status: one line of printable characters, at most limit of them. Names that the API server accepts stay
// as they are.
func clean(text string, limit int) string {
	runes := []rune(text)
	for i, r := range runes {
		if !unicode.IsPrint(r) {
			runes[i] = unicode.ReplacementChar
		}
	}
	if len(runes) > limit {
		runes = append(runes[:limit-1:limit-1], '…')
	}
	return string(runes)
}

// join returns "namespace/name", or the name alone if there is no namespace.
func join(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// near names an object as seen from a namespace: with its own only if that is another one.
func near(from, namespace, name string) string {
	if namespace == from {
		return name
	}
	return join(namespace, name)
}

// enumerate joins the first items, and counts the others. An item that occurs twice counts once.
func enumerate(items []string, separator string) string {
	var unique []string
	seen := map[string]bool{}
	for _, item := range items {
		if !seen[item] {
			seen[item] = true
			unique = append(unique, item)
		}
	}
	if rest := len(unique) - maxItems; rest > 0 {
		return strings.Join(unique[:maxItems], separator) + fmt.Sprintf(" and %d more", rest)
	}
	return strings.Join(unique, separator)
}

// phrases joins the parts of a detail that are not empty.
func phrases(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "; ")
}
