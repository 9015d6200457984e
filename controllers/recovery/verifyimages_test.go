package recovery

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/image"
)

func naming(images ...string) v1alpha1.RecoveryPlanSpec {
	good := v1alpha1.KnownGoodImages{Workload: v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}}
	for i, name := range images {
		good.Containers = append(good.Containers, v1alpha1.ContainerImage{Name: fmt.Sprintf("c%d", i), Image: name})
	}
	return v1alpha1.RecoveryPlanSpec{Images: []v1alpha1.KnownGoodImages{good}}
}

func TestImagesOf(t *testing.T) {
	plan := naming("a", "b", "a")
	plan.Steps = []v1alpha1.RecoveryStep{
		{RunJob: &v1alpha1.RunJobStep{Image: "job"}}, {RestoreVolumes: &v1alpha1.RestoreVolumesStep{}},
		{RestoreVolumes: &v1alpha1.RestoreVolumesStep{Check: v1alpha1.VolumeCheck{Image: "check"}}}, {RunJob: &v1alpha1.RunJobStep{Image: "b"}},
		{Verify: &v1alpha1.VerifyStep{Job: v1alpha1.RunJobStep{Image: "look"}}, Gate: &v1alpha1.VerifyStep{Job: v1alpha1.RunJobStep{Image: "gate"}}},
		{Release: &v1alpha1.ReleaseStep{Watched: v1alpha1.VerifyStep{Job: v1alpha1.RunJobStep{Image: "watch"}}}},
	}
	if diff := cmp.Diff([]string{"a", "b", "job", "check", "look", "gate", "watch"}, imagesOf(plan)); diff != "" {
		t.Errorf("imagesOf() (-want +got):\n%s", diff)
	}
}

func TestVerifyImages(t *testing.T) {
	known := map[string]image.Verdict{
		"good": {State: image.Good, Digests: []string{digestA, digestB}, Signer: "release"}, "missing": {State: image.Missing, Why: "does not exist"},
		"unsigned": {State: image.Unverified, Why: "carries no signature"}, "slow": {Why: "is being looked up"},
	}
	many := make([]string, v1alpha1.MaxVerifiedImages+1)
	for i := range many {
		many[i] = fmt.Sprintf("image-%d", i)
	}
	cases := map[string]struct {
		images  []string
		old     bool // what is known is not recent
		lasting bool
		want    []v1alpha1.VerifiedImage
		reason  string
		why     string
	}{
		"all are good":                   {images: []string{"good"}, want: []v1alpha1.VerifiedImage{{Image: "good", Digests: []string{digestA, digestB}, Signer: "release"}}},
		"one is missing":                 {images: []string{"good", "missing"}, reason: v1alpha1.ReasonImageMissing, why: "the image missing does not exist"},
		"one is not signed":              {images: []string{"unsigned", "good"}, reason: v1alpha1.ReasonImageUnverified, why: "the image unsigned carries no signature"},
		"one is not known":               {images: []string{"good", "slow"}, reason: v1alpha1.ReasonImagesUnknown, why: "the image slow is being looked up"},
		"what is bad comes first":        {images: []string{"slow", "unsigned", "missing"}, reason: v1alpha1.ReasonImageMissing, why: "the image unsigned carries no signature; the image missing does not exist"},
		"what is old does not count":     {images: []string{"good"}, old: true, reason: v1alpha1.ReasonImagesUnknown, why: "the image good is being looked up anew"},
		"nor does what is bad and old":   {images: []string{"unsigned"}, old: true, reason: v1alpha1.ReasonImagesUnknown, why: "the image unsigned carries no signature"},
		"unless it lasts":                {images: []string{"good"}, old: true, lasting: true, want: []v1alpha1.VerifiedImage{{Image: "good", Digests: []string{digestA, digestB}, Signer: "release"}}},
		"what was never known lasts not": {images: []string{"slow"}, old: true, lasting: true, reason: v1alpha1.ReasonImagesUnknown, why: "the image slow is being looked up"},
		"more than can be":               {images: many, reason: v1alpha1.ReasonInvalidVerification, why: "the plan names 65 images, and at most 64 can be verified"},
		"none":                           {},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			look := func(name string) (image.Verdict, bool) { return known[name], !tc.old }
			got, reason, why := VerifyImages(naming(tc.images...), look, tc.lasting)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("verified (-want +got):\n%s", diff)
			}
			if reason != tc.reason || !strings.HasPrefix(why, tc.why) || (tc.why == "") != (why == "") {
				t.Errorf("VerifyImages() = %q, %q, want %q, %q", reason, why, tc.reason, tc.why)
			}
		})
	}
}

func TestPodsAreRecognisedByDigestsThatBelongToTheirImage(t *testing.T) {
	platform := "sha256:" + strings.Repeat("c", 64)
	compromisedPlatform := "sha256:" + strings.Repeat("d", 64)
	inc := incident(nil)
	inc.Spec.CompromisedDigests = []string{compromisedPlatform}
	reporting := func(digest string) *corev1.Pod {
		return pod("web-1", "rs-new", "new", func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ImageID = "registry/web@" + digest })
	}
	found := []v1alpha1.VerifiedImage{{Image: goodImage, Digests: []string{goodDigest, platform}}, {Image: "registry/other@" + goodDigest, Digests: []string{badDigest}}}
	cases := map[string]struct {
		digest   string
		verified []v1alpha1.VerifiedImage
		want     bool
	}{
		"its own":                              {digest: goodDigest, want: true},
		"a platform's, which nobody looked up": {digest: platform},
		"a platform's":                         {digest: platform, verified: found, want: true},
		"its own, looked up":                   {digest: goodDigest, verified: found, want: true},
		"another image's":                      {digest: badDigest, verified: found},
		"a compromised platform's":             {digest: compromisedPlatform, verified: []v1alpha1.VerifiedImage{{Image: goodImage, Digests: []string{goodDigest, compromisedPlatform}}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if why := unproven(&Execution{Incident: inc, Verified: tc.verified}, reporting(tc.digest), good("main")); (why == "") != tc.want {
				t.Errorf("unproven() = %q, want it proven: %t", why, tc.want)
			}
		})
	}
}
