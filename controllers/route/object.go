package route

import "fmt"

// object reads fields of an object of any shape. What is absent or null is not there; what has another type than it should is a problem.
type object struct {
	path     string
	fields   map[string]any
	problems *[]string
}

func (o object) problem(field, what string) {
	*o.problems = append(*o.problems, fmt.Sprintf("%s %s", o.at(field), what))
}

func (o object) at(field string) string {
	if o.path == "" {
		return field
	}
	return o.path + "." + field
}

// object returns the object in the field, and whether there is one.
func (o object) object(field string) (object, bool) {
	value := o.fields[field]
	if value == nil {
		return object{}, false
	}
	fields, ok := value.(map[string]any)
	if !ok {
		o.problem(field, "is not an object")
	}
	return object{path: o.at(field), fields: fields, problems: o.problems}, ok
}

// objects returns those objects in the field's list that can be read.
func (o object) objects(field string) []object {
	value := o.fields[field]
	if value == nil {
		return nil
	}
	items, ok := value.([]any)
	if !ok {
		o.problem(field, "is not a list")
		return nil
	}
	var out []object
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", field, i)
		fields, ok := item.(map[string]any)
		if !ok {
			o.problem(at, "is not an object")
			continue
		}
		out = append(out, object{path: o.at(at), fields: fields, problems: o.problems})
	}
	return out
}

// text returns the string in the field, or the other one if there is none. It returns false if the field is not a string.
func (o object) text(field, otherwise string) (string, bool) {
	switch value := o.fields[field].(type) {
	case nil:
		return otherwise, true
	case string:
		return value, true
	}
	o.problem(field, "is not a string")
	return "", false
}

// zero says whether the field is the number 0.
func (o object) zero(field string) bool {
	switch value := o.fields[field].(type) {
	case int64:
		return value == 0
	case float64:
		return value == 0
	}
	return false
}
