package isolation

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// describeAlternatives writes the parts one after the other, and why there may be fewer.
func describeAlternatives(a alternatives) string {
	out := []string{}
	for _, c := range a.parts {
		out = append(out, describePods(c))
	}
	text := strings.Join(out, "; ")
	if a.why != "" {
		text += " ?? " + a.why
	}
	return text
}

func TestCalicoSelectorSelects(t *testing.T) {
	const inside = " ?? spec.selector (it looks into the value of label app)"
	cases := map[string]struct {
		text, prefix string
		global       bool
		want, but    string // but is what it does not select
	}{
		"empty selector selects every pod":       {want: "all namespaces / all pods"},
		"blanks are no selector either":          {text: " \t", want: "all namespaces / all pods"},
		"all()":                                  {text: "all( )", want: "all namespaces / all pods"},
		"global() stands for no pod":             {text: "global()", global: true, but: "all namespaces / all pods"},
		"has":                                    {text: "has( app )", want: "all namespaces / pods app", but: "all namespaces / pods !app"},
		"not has":                                {text: "! has(app)", want: "all namespaces / pods !app", but: "all namespaces / pods app"},
		"twice not":                              {text: "!!has(app)", want: "all namespaces / pods app", but: "all namespaces / pods !app"},
		"equal":                                  {text: "app == 'web'", want: "all namespaces / pods app=web", but: "all namespaces / pods app notin (web)"},
		"equal without blanks":                   {text: "app=='web'", want: "all namespaces / pods app=web", but: "all namespaces / pods app notin (web)"},
		"other quotes":                           {text: `app=="it's"`, want: "all namespaces / pods app=it's", but: "all namespaces / pods app notin (it's)"},
		"not equal holds pods without label":     {text: "app != 'web'", want: "all namespaces / pods app notin (web)", but: "all namespaces / pods app=web"},
		"in":                                     {text: "app in {'b','a', 'a'}", want: "all namespaces / pods app in (a,b)", but: "all namespaces / pods app notin (a,b)"},
		"in may end with a comma":                {text: "app in { 'a', }", want: "all namespaces / pods app=a", but: "all namespaces / pods app notin (a)"},
		"in nothing":                             {text: "app in {}", but: "all namespaces / all pods"},
		"not in":                                 {text: "app not in {'a'}", want: "all namespaces / pods app notin (a)", but: "all namespaces / pods app=a"},
		"not in without blanks":                  {text: "app notin{'a'}", want: "all namespaces / pods app notin (a)", but: "all namespaces / pods app=a"},
		"not in nothing":                         {text: "app not in {}", want: "all namespaces / all pods"},
		"and":                                    {text: "app == 'a' && has(x)", want: "all namespaces / pods app=a,x", but: "all namespaces / pods app notin (a); all namespaces / pods !x"},
		"and that contradicts itself":            {text: "app == 'a' && app == 'b'", but: "all namespaces / pods app notin (a); all namespaces / pods app notin (b)"},
		"or":                                     {text: "app == 'a' || has(x)", want: "all namespaces / pods app=a; all namespaces / pods x", but: "all namespaces / pods app notin (a),!x"},
		"and binds more tightly than or":         {text: "has(a) || has(b) && has(c)", want: "all namespaces / pods a; all namespaces / pods b,c", but: "all namespaces / pods !a,!b; all namespaces / pods !a,!c"},
		"parentheses":                            {text: "(has(a) || has(b)) && has(c)", want: "all namespaces / pods a,c; all namespaces / pods b,c", but: "all namespaces / pods !a,!b; all namespaces / pods !c"},
		"not of parentheses":                     {text: "!(has(a) && has(b))", want: "all namespaces / pods !a; all namespaces / pods !b", but: "all namespaces / pods a,b"},
		"or with everything":                     {text: "has(a) || all()", want: "all namespaces / all pods"},
		"a label that looks like a function":     {text: "has == 'a' && all == 'b'", want: "all namespaces / pods all=b,has=a", but: "all namespaces / pods has notin (a); all namespaces / pods all notin (b)"},
		"contains":                               {text: "app contains 'x'", want: "all namespaces / pods app" + inside, but: "all namespaces / all pods" + inside},
		"starts with":                            {text: "app starts with 'x'", want: "all namespaces / pods app" + inside, but: "all namespaces / all pods" + inside},
		"ends with":                              {text: "app endswith'x'", want: "all namespaces / pods app" + inside, but: "all namespaces / all pods" + inside},
		"contains nothing":                       {text: "app contains ''", want: "all namespaces / pods app", but: "all namespaces / pods !app"},
		"what is undecided can be beside it":     {text: "app contains 'x' && !has(app)", but: "all namespaces / all pods" + inside},
		"everything hides what is undecided":     {text: "app contains 'x' || all()", want: "all namespaces / all pods"},
		"label of the namespace":                 {text: "pcns.team == 'a'", want: "namespaces team=a / all pods", but: "namespaces team notin (a) / all pods"},
		"label of a namespaceSelector":           {text: "team == 'a'", prefix: calicoNamespacePrefix, want: "namespaces team=a / all pods", but: "namespaces team notin (a) / all pods"},
		"name of the namespace":                  {text: "projectcalico.org/name == 'shop'", prefix: calicoNamespacePrefix, want: "all pods in namespace shop", but: "namespaces kubernetes.io/metadata.name notin (shop) / all pods"},
		"name of the namespace by its own label": {text: "kubernetes.io/metadata.name == 'shop'", prefix: calicoNamespacePrefix, want: "all pods in namespace shop", but: "namespaces kubernetes.io/metadata.name notin (shop) / all pods"},
		"namespace of a pod":                     {text: "projectcalico.org/namespace in {'shop'}", want: "all pods in namespace shop", but: "namespaces kubernetes.io/metadata.name notin (shop) / all pods"},
		"every pod has a namespace":              {text: "has(projectcalico.org/namespace)", want: "all namespaces / all pods"},
		"every pod is one of Kubernetes":         {text: "projectcalico.org/orchestrator == 'k8s'", want: "all namespaces / all pods"},
		"no pod is one of another orchestrator":  {text: "projectcalico.org/orchestrator == 'cni'", but: "all namespaces / all pods"},
		"label of the ServiceAccount":            {text: "pcsa.role == 'x'", want: "all namespaces / all pods with ServiceAccount role=x", but: "all namespaces / all pods with ServiceAccount role notin (x)"},
		"label of a serviceAccountSelector":      {text: "role == 'x'", prefix: calicoAccountPrefix, want: "all namespaces / all pods with ServiceAccount role=x", but: "all namespaces / all pods with ServiceAccount role notin (x)"},
		"ServiceAccount of a pod":                {text: "projectcalico.org/serviceaccount == 'x'", want: "all namespaces / all pods with ServiceAccount name=x", but: "all namespaces / all pods with ServiceAccount name notin (x)"},
		"pods without a ServiceAccount":          {text: "!has(projectcalico.org/serviceaccount)", want: "all namespaces / all pods with ServiceAccount name=", but: "all namespaces / all pods with ServiceAccount name notin ()"},
		"name of the ServiceAccount": {
			text: "projectcalico.org/name == 'x'", prefix: calicoAccountPrefix, // the label goes when the ServiceAccount does; its name stays
			want: "all namespaces / all pods with ServiceAccount name=x,projectcalico.org/name=x",
			but:  "all namespaces / all pods with ServiceAccount projectcalico.org/name notin (x)",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s, err := parseCalicoSelector("spec.selector", tc.prefix, tc.text, tc.global)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, describeAlternatives(s.pods(false))); diff != "" {
				t.Errorf("pods(false) mismatch (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.but, describeAlternatives(s.pods(true))); diff != "" {
				t.Errorf("pods(true) mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCalicoSelectorThatCannotBeRead(t *testing.T) {
	for _, text := range []string{
		"app", "app =", "app = 'a'", "== 'a'", "app == a", "app == 'a", "app == 'a\"", "app 'a'", "app in", "app in 'a'", "app in {'a' 'b'}", "app in {,}", "app in {'a'", "app not {'a'}",
		"app starts 'a'", "app starts in {'a'}", "app not == 'a'", "has(app", "has()", "has app", "has (app)", "all", "all(", "all(x)", "!", "!=", "(", ")", "()", "(has(a)", "has(a))",
		"has(a) has(b)", "has(a) &", "has(a) & has(b)", "has(a) &&", "&& has(a)", "has(a) | has(b)", "has(a) || || has(b)", "has(ä)", "app == 'a'; x", "global()", "app: web", "app\n== 'a'",
	} {
		if s, err := parseCalicoSelector("spec.selector", "", text, false); err == nil {
			t.Errorf("%q was read as %s", text, describeAlternatives(s.pods(false)))
		}
	}
}

// A selector that is made to be expensive is left undecided, and takes little time.
func TestCalicoSelectorHasBounds(t *testing.T) {
	repeat := func(n int, format, join string) string {
		var parts []string
		for i := range n {
			parts = append(parts, strings.ReplaceAll(format, "#", fmt.Sprint(i)))
		}
		return strings.Join(parts, join)
	}
	cases := map[string]struct{ text, want string }{
		"as many alternatives as allowed": {text: repeat(maxAlternatives, "has(a#)", " || ")},
		"more alternatives":               {text: repeat(maxAlternatives+1, "has(a#)", " || "), want: "it is too intricate"},
		"alternatives that multiply":      {text: repeat(40, "(has(a#) || has(b#))", " && "), want: "it is too intricate"},
		"as many terms as allowed":        {text: repeat(maxSelectorTerms, "has(a#)", " && ")},
		"more terms":                      {text: repeat(maxSelectorTerms+1, "has(a#)", " && "), want: "it is too intricate"},
		"as many labels as allowed":       {text: "(has(x) || has(y)) && " + repeat(maxSelectorTerms/2-1, "has(a#)", " && ")},
		"more labels":                     {text: "(has(x) || has(y)) && " + repeat(maxSelectorTerms/2, "has(a#)", " && "), want: "it is too intricate"},
		"nesting":                         {text: strings.Repeat("(", 1<<20), want: "it is too intricate"},
		"negations":                       {text: strings.Repeat("! ", 1<<20) + "has(a)"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s, err := parseCalicoSelector("spec.selector", "", tc.text, false)
			if err != nil {
				t.Fatal(err)
			}
			want := tc.want
			if want != "" {
				want = "spec.selector (" + want + ")"
			}
			got := s.pods(false)
			if diff := cmp.Diff(want, got.why); diff != "" {
				t.Errorf("undecided mismatch (-want +got):\n%s", diff)
			}
			hasNone := seen{}
			if want != "" && !got.holds(hasNone) && !s.pods(true).holds(hasNone) {
				t.Error("a pod is neither selected nor not")
			}
		})
	}
}

// seen is a pod of the small universe that selectors are tried on.
type seen struct {
	namespace, labels, accountLabels labelSet
	account                          string
	// calico are the labels that Calico compares, by its documentation.
	calico labelSet
}

func newSeen(namespace string, namespaceLabels labelSet, account string, accountLabels, labels labelSet) seen {
	p := seen{namespace: maps.Clone(namespaceLabels), labels: labels, account: account, accountLabels: maps.Clone(accountLabels), calico: maps.Clone(labels)}
	p.namespace["kubernetes.io/metadata.name"] = namespace
	p.calico["projectcalico.org/namespace"] = namespace
	p.calico["projectcalico.org/orchestrator"] = "k8s"
	for k, v := range p.namespace {
		p.calico["pcns."+k] = v
	}
	p.calico["pcns.projectcalico.org/name"] = namespace
	if account != "" {
		p.accountLabels["projectcalico.org/name"] = account
		p.calico["projectcalico.org/serviceaccount"] = account
	}
	for k, v := range p.accountLabels {
		p.calico["pcsa."+k] = v
	}
	return p
}

// holds says whether one of the parts holds the pod.
func (a alternatives) holds(p seen) bool {
	return slices.ContainsFunc(a.parts, func(c constraint) bool {
		for _, r := range c {
			if r.domain == ofServiceAccount && r.key != serviceAccountName && !r.values.has(p.accountLabels, r.key) {
				return false
			}
		}
		return c.matches(p.namespace, p.labels, p.account)
	})
}

// smallWorld are pods with all sorts of labels that randomSelector asks for.
func smallWorld() []seen {
	namespaces := map[string]labelSet{"shop": {"a": "x"}, "x": {}, "xy": {"a": "xy", "b": ""}}
	accounts := map[string]labelSet{"": {}, "x": {"a": "xy"}, "shop": {"b": "x"}}
	var out []seen
	for _, namespace := range slices.Sorted(maps.Keys(namespaces)) {
		for _, account := range slices.Sorted(maps.Keys(accounts)) {
			for _, labels := range []labelSet{{}, {"a": ""}, {"a": "x"}, {"a": "xy", "b": "x"}, {"a": "shop", "b": "yx"}, {"b": "x"}} {
				out = append(out, newSeen(namespace, namespaces[namespace], account, accounts[account], labels))
			}
		}
	}
	return out
}

// randomCombination puts two selectors together, or turns one around.
func randomCombination(g *rand.Rand, depth int, blank func() string) (string, func(labelSet) bool) {
	left, l := randomSelector(g, depth-1)
	right, r := randomSelector(g, depth-1)
	switch g.IntN(4) {
	case 0:
		return "!" + blank() + "(" + left + ")", func(s labelSet) bool { return !l(s) }
	case 1:
		return "(" + blank() + left + ")" + blank() + "||" + blank() + right, func(s labelSet) bool { return l(s) || r(s) }
	case 2:
		return "(" + left + ")" + blank() + "&&" + blank() + "(" + right + ")", func(s labelSet) bool { return l(s) && r(s) }
	}
	return left + "||" + right, func(s labelSet) bool { return l(s) || r(s) }
}

// randomText returns a selector that looks into a label's value.
func randomText(g *rand.Rand, key, value, quoted string) (string, func(labelSet) bool) {
	switch g.IntN(3) {
	case 0:
		return key + " contains " + quoted, func(s labelSet) bool { v, has := s[key]; return has && strings.Contains(v, value) }
	case 1:
		return key + " starts with " + quoted, func(s labelSet) bool { v, has := s[key]; return has && strings.HasPrefix(v, value) }
	}
	return key + " ends with " + quoted, func(s labelSet) bool { v, has := s[key]; return has && strings.HasSuffix(v, value) }
}

// randomSelector returns a selector and what it says of labels. The two are made side by side, so that no reading of the text is needed to know what it means.
func randomSelector(g *rand.Rand, depth int) (string, func(labelSet) bool) {
	blank := func() string { return []string{"", " ", "  ", "\t"}[g.IntN(4)] }
	if depth > 0 && g.IntN(3) > 0 {
		return randomCombination(g, depth, blank)
	}
	keys := []string{
		"a", "b", "c", "pcns.a", "pcns.b", "pcns.projectcalico.org/name", "pcsa.a", "pcsa.projectcalico.org/name",
		"projectcalico.org/namespace", "projectcalico.org/orchestrator", "projectcalico.org/serviceaccount",
	}
	values := []string{"", "x", "xy", "shop", "k8s"}
	key, value, other := keys[g.IntN(len(keys))], values[g.IntN(len(values))], values[g.IntN(len(values))]
	quote := []string{"'", `"`}[g.IntN(2)]
	quoted, set := quote+value+quote, "{'"+value+"',"+blank()+`"`+other+`"}`
	switch g.IntN(12) {
	case 0:
		return "all()", func(labelSet) bool { return true }
	case 1, 2:
		return "has(" + blank() + key + blank() + ")", func(s labelSet) bool { _, has := s[key]; return has }
	case 3, 4:
		return key + blank() + "==" + blank() + quoted, func(s labelSet) bool { v, has := s[key]; return has && v == value }
	case 5, 6:
		return key + blank() + "!=" + blank() + quoted, func(s labelSet) bool { v, has := s[key]; return !has || v != value }
	case 7, 8:
		return key + " in" + blank() + set, func(s labelSet) bool { v, has := s[key]; return has && (v == value || v == other) }
	case 9, 10:
		return key + " not" + blank() + "in" + set, func(s labelSet) bool { v, has := s[key]; return !has || v != value && v != other }
	}
	return randomText(g, key, value, quoted)
}

// What is decided is exactly what the expression says of every pod; what is not decided is never less.
func TestRandomCalicoSelectors(t *testing.T) {
	g := rand.New(rand.NewPCG(7, 8))
	world := smallWorld()
	const rounds = 10000
	exact, some := 0, 0
	for range rounds {
		text, want := randomSelector(g, g.IntN(4))
		s, err := parseCalicoSelector("spec.selector", "", text, false)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for _, negated := range []bool{false, true} {
			got := s.pods(negated)
			if got.why == "" {
				exact++
			}
			for _, p := range world {
				in, meant := got.holds(p), want(p.calico) != negated
				if meant {
					some++
				}
				if in != meant && (got.why == "" || meant) {
					t.Fatalf("%q, negated %v: %s holds %+v: %v", text, negated, describeAlternatives(got), p, in)
				}
			}
		}
	}
	if exact < rounds || some < rounds*len(world)/2 {
		t.Errorf("of %d selectors %d were decided, and pods were selected %d times: the test proves little", 2*rounds, exact, some)
	}
}

// The words of the language, for a second reader that knows no recursion.
var selectorWords = regexp.MustCompile(`^[ \t]*(\(|\)|\{|\}|,|==|!=|!|&&|\|\||"[^"]*"|'[^']*'|has\([ \t]*[a-zA-Z0-9_./-]+[ \t]*\)|all\([ \t]*\)|[a-zA-Z0-9_./-]+)[ \t]*`)
var selectorOperators = regexp.MustCompile(`^(contains|starts[ \t]*with|ends[ \t]*with|not[ \t]*in|in)[ \t]*`)

// selectorOperands are what becomes an operand, letter by letter.
var selectorOperands = regexp.MustCompile(`l=s|li\{(s(,s)*,?)?\}|!E|E&E|\(E\)`)

// readableSelector says whether a text is a selector, by writing it with one letter for a word and shortening that as long as possible.
func readableSelector(text string) bool {
	letters := ""
	for text = strings.TrimLeft(text, " \t"); text != ""; {
		if strings.HasSuffix(letters, "l") {
			if op := selectorOperators.FindString(text); op != "" {
				letters, text = letters+map[bool]string{true: "i", false: "="}[strings.HasSuffix(strings.TrimRight(op, " \t"), "in")], text[len(op):]
				continue
			}
		}
		word := selectorWords.FindStringSubmatch(text)
		if word == nil {
			return false
		}
		text = text[len(word[0]):]
		switch w := word[1]; {
		case w[0] == '"', w[0] == '\'':
			letters += "s"
		case w == "==", w == "!=":
			letters += "="
		case w == "&&", w == "||":
			letters += "&"
		case strings.HasSuffix(w, ")") && len(w) > 1:
			letters += "E"
		case len(w) == 1 && strings.Contains("(){},!", w):
			letters += w
		default:
			letters += "l"
		}
	}
	for {
		next := selectorOperands.ReplaceAllString(letters, "E")
		if next == letters {
			return letters == "E" || letters == ""
		}
		letters = next
	}
}

// Both readers agree on what is a selector, and a selector and its negation share nothing and leave nobody out.
func checkSelector(t *testing.T, world []seen, text string) {
	t.Helper()
	s, err := parseCalicoSelector("spec.selector", "", text, false)
	if err == nil && s.root.kind == unreadNode {
		return
	}
	if (err == nil) != readableSelector(text) {
		t.Fatalf("%q: %v", text, err)
	}
	if err != nil {
		return
	}
	yes, no := s.pods(false), s.pods(true)
	for _, p := range world {
		switch in, out := yes.holds(p), no.holds(p); {
		case !in && !out:
			t.Fatalf("%q: %+v is neither selected nor not", text, p)
		case in && out && yes.why+no.why == "":
			t.Fatalf("%q: %+v is selected and is not", text, p)
		}
	}
}

func TestRandomTextIsNoCalicoSelectorByChance(t *testing.T) {
	g := rand.New(rand.NewPCG(9, 10))
	words := []string{"(", ")", "{", "}", ",", "==", "!=", "!", "&&", "||", "'x'", `"y"`, "has(a)", "has(", "all()", "a", "in", "not in", "notin", "contains", "starts with", "ends", " ", "="}
	world := smallWorld()
	good := 0
	for range 50000 {
		text := ""
		for range 1 + g.IntN(9) {
			text += words[g.IntN(len(words))]
		}
		if readableSelector(text) {
			good++
		}
		checkSelector(t, world[:4], text)
	}
	if good < 500 {
		t.Errorf("only %d texts were selectors: the test proves little", good)
	}
}

func FuzzCalicoSelector(f *testing.F) {
	for _, text := range []string{
		"", "all()", "has(a) && !(b == 'x' || c in {'y', \"z\",})", "pcns.projectcalico.org/name not in {'shop'}", "a starts with 'x'", "a endswith''", "((((", "a == '", "!!!!a != 'b'",
	} {
		f.Add(text)
	}
	world := smallWorld()
	f.Fuzz(func(t *testing.T, text string) { checkSelector(t, world, text) })
}
