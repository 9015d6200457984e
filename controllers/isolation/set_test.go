package isolation

import (
	"slices"
	"testing"
)

func TestViewsOfASet(t *testing.T) {
	allow := ReadNetworkPolicy(newPolicy("a", ingress(everything(), nil)))
	deny := ReadNetworkPolicy(denyPolicy())
	set := NewSet(allow)
	pod := stripped()
	leaking := func(s *Set) []string {
		var out []string
		for _, l := range Evaluate(pod, s, nil, nil) {
			out = append(out, string(l.Direction)+" "+l.Source.Name)
		}
		return out
	}
	narrowed := *allow
	narrowed.subject = subject{} // the same object in a state in which it selects nobody
	cases := map[string]struct {
		view *Set
		want []string
	}{
		"as it is":                         {view: set, want: []string{"Egress ", "Ingress a"}},
		"with one more":                    {view: set.With(deny), want: []string{"Ingress a"}},
		"without one":                      {view: set.Without(allow.Ref), want: []string{"Egress ", "Ingress "}},
		"one more and one less":            {view: set.With(deny).Without(allow.Ref), want: nil},
		"one less and one more":            {view: set.Without(allow.Ref).With(deny), want: nil},
		"added and taken out again":        {view: set.With(deny).Without(deny.Ref), want: []string{"Egress ", "Ingress a"}},
		"an object in another state":       {view: set.With(&narrowed, deny), want: nil},
		"a policy of another namespace":    {view: set.With(ReadNetworkPolicy(in(denyPolicy(), "other"))), want: []string{"Egress ", "Ingress a"}},
		"the set itself is still the same": {view: set, want: []string{"Egress ", "Ingress a"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := leaking(tc.view); !slices.Equal(got, tc.want) {
				t.Errorf("leaks %q, want %q", got, tc.want)
			}
		})
	}
}
