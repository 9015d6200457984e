package foreign

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// served is a discovery that serves the resources by group version, the first version of a group being the preferred one.
type served struct {
	discovery.DiscoveryInterface
	versions  []string
	resources map[string][]metav1.APIResource
	broken    bool
	asked     int
}

func (d *served) ServerGroups() (*metav1.APIGroupList, error) {
	d.asked++
	if d.broken {
		return nil, errors.New("away")
	}
	out := &metav1.APIGroupList{}
	for _, v := range d.versions {
		gv, err := schema.ParseGroupVersion(v)
		if err != nil {
			return nil, err
		}
		version := metav1.GroupVersionForDiscovery{GroupVersion: v, Version: gv.Version}
		i := slices.IndexFunc(out.Groups, func(g metav1.APIGroup) bool { return g.Name == gv.Group })
		if i < 0 {
			i = len(out.Groups)
			out.Groups = append(out.Groups, metav1.APIGroup{Name: gv.Group, PreferredVersion: version})
		}
		out.Groups[i].Versions = append(out.Groups[i].Versions, version)
	}
	return out, nil
}

func (d *served) ServerResourcesForGroupVersion(gv string) (*metav1.APIResourceList, error) {
	r, ok := d.resources[gv]
	if !ok {
		return nil, errors.New("no resources of " + gv)
	}
	return &metav1.APIResourceList{GroupVersion: gv, APIResources: r}, nil
}

// objects answers lists by "kind namespace", with an empty namespace for a list over all of them.
type objects struct {
	client.Reader
	names  map[string]string
	errs   map[string]error
	listed []string
}

func (o *objects) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := (&client.ListOptions{}).ApplyOptions(opts)
	kind := strings.TrimSuffix(list.GetObjectKind().GroupVersionKind().Kind, "List")
	o.listed = append(o.listed, kind)
	if err := o.errs[kind]; err != nil {
		return err
	}
	if name := o.names[kind+" "+options.Namespace]; name != "" {
		list.(*metav1.PartialObjectMetadataList).Items = []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Name: name}}}
	}
	return nil
}

func resource(kind string, namespaced bool) metav1.APIResource {
	return metav1.APIResource{Name: strings.ToLower(kind) + "s", Kind: kind, Namespaced: namespaced}
}

func everything() *served {
	return &served{
		versions: []string{"apps/v1", "networking.k8s.io/v1", "policy.networking.k8s.io/v1alpha2", "crd.antrea.io/v1beta1", "crd.antrea.io/v1alpha1"},
		resources: map[string][]metav1.APIResource{
			"apps/v1":                           {resource("Deployment", true)},
			"networking.k8s.io/v1":              {resource("NetworkPolicy", true)},
			"policy.networking.k8s.io/v1alpha2": {resource("ClusterNetworkPolicy", false)},
			"crd.antrea.io/v1beta1":             {resource("NetworkPolicy", true), resource("NetworkPolicy", true), resource("Tier", false)},
			"crd.antrea.io/v1alpha1":            {resource("NetworkPolicy", true), resource("ClusterNetworkPolicy", false)},
		},
	}
}

func finder(d *served) *Finder {
	return &Finder{Discovery: d, Clock: clocktesting.NewFakePassiveClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))}
}

func TestFind(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("no"))
	noMatch := &apimeta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "NetworkPolicy"}}
	gone := apierrors.NewNotFound(schema.GroupResource{}, "")
	cases := map[string]struct {
		discovery *served
		objects   *objects
		want      string
		fails     bool
	}{
		"other groups only":              {discovery: &served{versions: []string{"networking.k8s.io/v1"}, resources: everything().resources}, objects: &objects{errs: map[string]error{"NetworkPolicy": errors.New("must not be read")}}},
		"served, none exists":            {discovery: everything(), objects: &objects{}},
		"in the namespace":               {discovery: everything(), objects: &objects{names: map[string]string{"NetworkPolicy shop": "allow"}}, want: "NetworkPolicy (crd.antrea.io) allow"},
		"in another namespace":           {discovery: everything(), objects: &objects{names: map[string]string{"NetworkPolicy bank": "allow"}}},
		"for the cluster":                {discovery: everything(), objects: &objects{names: map[string]string{"ClusterNetworkPolicy ": "wide"}}, want: "wide"},
		"of a version not preferred":     {discovery: everything(), objects: &objects{names: map[string]string{"ClusterNetworkPolicy ": "allow-all"}}, want: "allow-all"},
		"that may not be listed":         {discovery: everything(), objects: &objects{errs: map[string]error{"NetworkPolicy": forbidden}}, want: "may not list NetworkPolicy of crd.antrea.io"},
		"whose API has just gone":        {discovery: everything(), objects: &objects{errs: map[string]error{"NetworkPolicy": noMatch, "ClusterNetworkPolicy": gone}}},
		"whose API has gone, then other": {discovery: everything(), objects: &objects{errs: map[string]error{"NetworkPolicy": noMatch}, names: map[string]string{"ClusterNetworkPolicy ": "wide"}}, want: "wide"},
		"that cannot be listed":          {discovery: everything(), objects: &objects{errs: map[string]error{"NetworkPolicy": errors.New("away")}}, fails: true},
		"groups not known":               {discovery: &served{broken: true}, objects: &objects{}, fails: true},
		"resources not known":            {discovery: &served{versions: []string{"crd.antrea.io/v1beta1"}}, objects: &objects{}, fails: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := finder(tc.discovery).Find(context.Background(), tc.objects, "shop")
			if (err != nil) != tc.fails {
				t.Fatalf("Find() error = %v, want one: %v", err, tc.fails)
			}
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("Find() = %q, want %q", got, tc.want)
			}
			for _, kind := range tc.objects.listed {
				if n := len(slices.DeleteFunc(slices.Clone(tc.objects.listed), func(k string) bool { return k != kind })); n > 1 {
					t.Errorf("%s was listed %d times", kind, n)
				}
			}
		})
	}
}

func TestDiscoveryIsBelievedForAMinute(t *testing.T) {
	d := &served{}
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	f := &Finder{Discovery: d, Clock: clock}
	installed := &objects{names: map[string]string{"NetworkPolicy shop": "allow"}}
	find := func() string {
		t.Helper()
		got, err := f.Find(context.Background(), installed, "shop")
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	find()
	*d = served{versions: everything().versions, resources: everything().resources, asked: d.asked}
	clock.SetTime(clock.Now().Add(discoveryTTL - time.Second))
	if got := find(); got != "" || d.asked != 1 {
		t.Errorf("within the minute: %q after %d questions, want none after one", got, d.asked)
	}
	clock.SetTime(clock.Now().Add(time.Second))
	if got := find(); got == "" || d.asked != 2 {
		t.Errorf("after the minute: %q after %d questions, want a finding after two", got, d.asked)
	}
}

// A discovery that failed half-way must not be believed.
func TestAFailedDiscoveryIsRepeated(t *testing.T) {
	d := everything()
	resources := d.resources
	d.resources = map[string][]metav1.APIResource{"crd.antrea.io/v1alpha1": nil}
	f := finder(d)
	o := &objects{names: map[string]string{"NetworkPolicy shop": "allow"}}
	if got, err := f.Find(context.Background(), o, "shop"); err == nil {
		t.Fatalf("Find() = %q, want an error", got)
	}
	d.resources = resources
	if got, err := f.Find(context.Background(), o, "shop"); err != nil || got == "" {
		t.Errorf("Find() = %q, %v, want a finding", got, err)
	}
}
