package recovery

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

var (
	digestA = "sha256:" + strings.Repeat("a", 64)
	digestB = "sha256:" + strings.Repeat("b", 64)
)

func TestCompromisedImage(t *testing.T) {
	good := func(images ...string) v1alpha1.RecoveryPlanSpec {
		k := v1alpha1.KnownGoodImages{Workload: v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}}
		for i, image := range images {
			k.Containers = append(k.Containers, v1alpha1.ContainerImage{Name: string(rune('a' + i)), Image: image})
		}
		return v1alpha1.RecoveryPlanSpec{Images: []v1alpha1.KnownGoodImages{k}}
	}
	job := func(step v1alpha1.RecoveryStep) v1alpha1.RecoveryPlanSpec {
		step.Name = "s"
		return v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{step}}
	}
	cases := map[string]struct {
		plan v1alpha1.RecoveryPlanSpec
		want string
	}{
		"none":             {plan: good("r/app@"+digestB, "r/app:tag")},
		"second container": {plan: good("r/app@"+digestB, "other/app:1@"+digestA), want: "of container b of Deployment web is compromised"},
		"a job":            {plan: job(v1alpha1.RecoveryStep{RunJob: &v1alpha1.RunJobStep{Image: "r/job@" + digestA}}), want: "step s runs the image r/job@" + digestA},
		"a check": {
			plan: job(v1alpha1.RecoveryStep{RestoreVolumes: &v1alpha1.RestoreVolumesStep{Check: v1alpha1.VolumeCheck{Image: "r/job@" + digestA}}}),
			want: "step s runs the image r/job@" + digestA,
		},
		"no check": {plan: job(v1alpha1.RecoveryStep{RestoreVolumes: &v1alpha1.RestoreVolumesStep{}})},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := CompromisedImage(tc.plan, []string{digestA})
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("CompromisedImage() = %q, want %q in it", got, tc.want)
			}
		})
	}
}

func TestKeepsCompromised(t *testing.T) {
	w := &workload{ref: v1alpha1.ObjectRef{Kind: "Deployment", Name: "web"}, template: &corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "init", Image: "r/init@" + digestB}},
		Containers:     []corev1.Container{{Name: "app", Image: "r/app:1"}, {Name: "sidecar", Image: "r/sidecar@" + digestA}},
	}}}
	listing := func(names ...string) v1alpha1.KnownGoodImages {
		var good v1alpha1.KnownGoodImages
		for _, name := range names {
			good.Containers = append(good.Containers, v1alpha1.ContainerImage{Name: name, Image: "r/new@" + digestB})
		}
		return good
	}
	if got := keepsCompromised(w, listing("app"), []string{digestA}); !strings.Contains(got, "container sidecar of Deployment web would keep the image r/sidecar@"+digestA) {
		t.Errorf("keepsCompromised() = %q, want it to name the sidecar", got)
	}
	if got := keepsCompromised(w, listing("app", "sidecar"), []string{digestA}); got != "" {
		t.Errorf("keepsCompromised() = %q, though the plan replaces the sidecar", got)
	}
	mounted := &workload{ref: w.ref, template: w.template.DeepCopy()}
	mounted.template.Spec.Volumes = []corev1.Volume{{Name: "plugins", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "r/plugins@" + digestA}}}}
	if got := keepsCompromised(mounted, listing("app", "sidecar"), []string{digestA}); !strings.Contains(got, "volume plugins of Deployment web would keep the image r/plugins@"+digestA) {
		t.Errorf("keepsCompromised() = %q, want it to name the volume", got)
	}
	if got := keepsCompromised(w, listing("app"), nil); got != "" {
		t.Errorf("keepsCompromised() = %q, though no digest is compromised", got)
	}
}

func TestCompromisedPart(t *testing.T) {
	found := []v1alpha1.VerifiedImage{{Image: "r/app@" + digestB, Digests: []string{digestB, digestA}}}
	if got := CompromisedPart(found, []string{digestA}); !strings.Contains(got, "the image r/app@"+digestB+" contains "+digestA) {
		t.Errorf("CompromisedPart() = %q, want it to name the platform", got)
	}
	if got := CompromisedPart(found, nil); got != "" {
		t.Errorf("CompromisedPart() = %q, though no digest is compromised", got)
	}
}

func TestRunsCompromised(t *testing.T) {
	pod := &corev1.Pod{Status: corev1.PodStatus{
		ContainerStatuses:          []corev1.ContainerStatus{{Name: "app", ImageID: "docker.io/r/app@" + digestB}, {Name: "waits"}},
		EphemeralContainerStatuses: []corev1.ContainerStatus{{Name: "debug", ImageID: digestA}},
	}}
	if container, digest := RunsCompromised(pod, []string{digestA}); container != "debug" || digest != digestA {
		t.Errorf("RunsCompromised() = %q, %q, want the debugger", container, digest)
	}
	if container, _ := RunsCompromised(pod, nil); container != "" {
		t.Errorf("RunsCompromised() = %q, though no digest is compromised", container)
	}
}

// A part of a known-good image that becomes known as compromised while the recovery is under way stops it, as the image itself does.
func TestCompromisedGoodKnowsItsParts(t *testing.T) {
	index, platform := "r/app@"+digestB, digestA
	good := v1alpha1.KnownGoodImages{Workload: v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}, Containers: []v1alpha1.ContainerImage{{Name: "app", Image: index}}}
	of := func(image string) []v1alpha1.VerifiedImage {
		return []v1alpha1.VerifiedImage{{Image: image, Digests: []string{digestB, platform}}}
	}
	for name, tc := range map[string]struct {
		found []v1alpha1.VerifiedImage
		want  bool
	}{
		"nothing was found out":      {},
		"a part of this image":       {found: of(index), want: true},
		"a part of some other image": {found: of("r/other@" + digestB)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := compromisedGood(good, []string{platform}, tc.found); (got != "") != tc.want {
				t.Errorf("compromisedGood() = %q, want it to be compromised: %t", got, tc.want)
			}
			inc := &v1alpha1.Incident{}
			inc.Namespace, inc.Spec.CompromisedDigests = "shop", []string{platform}
			inc.Status.Recovery = &v1alpha1.RecoveryStatus{Plan: v1alpha1.RecoveryPlanSpec{Images: []v1alpha1.KnownGoodImages{good}}, Images: tc.found}
			if got := CompromisedByNow(inc, v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web"}); got != tc.want {
				t.Errorf("CompromisedByNow() = %t", got)
			}
		})
	}
}
