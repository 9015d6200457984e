package explain

import (
	"reflect"
	"unicode"
)

// Bounds of what is told, so that nobody can flood a screen by what they write into objects.
const (
	// maxText bounds a string, in characters; maxLabels and maxItems bound maps and lists.
	maxText   = 2048
	maxLabels = 256
	maxItems  = 500
)

// Clean makes a text fit for a terminal: one line of printable characters, at most 2048 of them. Control characters, the escape sequences of terminals that begin with one, and characters that change the
// direction of writing or cannot be seen become "�".
func Clean(text string) string {
	runes := []rune(text)
	for i, r := range runes {
		if !unicode.IsPrint(r) {
			runes[i] = unicode.ReplacementChar
		}
	}
	if len(runes) > maxText {
		runes = append(runes[:maxText-1:maxText-1], '…')
	}
	return string(runes)
}

// cleanAll cleans every string that the value, a pointer, leads to. Going by type leaves no field out that somebody adds later.
func cleanAll(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(Clean(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			cleanAll(v.Elem())
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			cleanAll(field)
		}
	case reflect.Slice:
		for i := range v.Len() {
			cleanAll(v.Index(i))
		}
	case reflect.Map:
		if !v.IsNil() {
			v.Set(cleanLabels(v))
		}
	default:
	}
}

// cleanLabels cleans the keys and values of a map of labels.
func cleanLabels(v reflect.Value) reflect.Value {
	labels := v.Interface().(map[string]string)
	out := make(map[string]string, min(len(labels), maxLabels))
	for _, key := range sortedKeys(labels) {
		if len(out) < maxLabels {
			out[Clean(key)] = Clean(labels[key])
		}
	}
	return reflect.ValueOf(out)
}

// first returns the first items, and how many were left out.
func first[T any](items []T) ([]T, int) {
	if rest := len(items) - maxItems; rest > 0 {
		return items[:maxItems:maxItems], rest
	}
	return items, 0
}
