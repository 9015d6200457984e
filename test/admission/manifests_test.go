package admission

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/test/cluster"
)

var _ = Describe("The samples", func() {
	It("are accepted, all at once and each alone", func(ctx context.Context) {
		_, err := server.KubectlContext(ctx, "apply", "--dry-run=server", "-f", "config/samples")
		Expect(err).NotTo(HaveOccurred())
		files, err := filepath.Glob(filepath.Join(server.Root, "config", "samples", "*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		Expect(len(files)).To(BeNumerically(">=", 3))
		for _, file := range files {
			_, err := server.KubectlContext(ctx, "apply", "--dry-run=server", "-f", file)
			Expect(err).NotTo(HaveOccurred())
			_, err = server.KubectlContext(ctx, "apply", "-f", file)
			Expect(err).NotTo(HaveOccurred())
		}
		_, err = server.KubectlContext(ctx, "delete", "-f", "config/samples")
		Expect(err).NotTo(HaveOccurred())
	})
})

var _ = Describe("The overlays", func() {
	DescribeTable("are accepted", func(ctx context.Context, overlay string) {
		_, err := server.KubectlContext(ctx, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", "config/"+overlay)
		Expect(err).NotTo(HaveOccurred())
	},
		Entry("default", "default"),
		Entry("default-without-map", "default-without-map"),
		Entry("external", "external"),
	)

	It("without MutatingAdmissionPolicy has none", func(ctx context.Context) {
		output, err := server.KubectlContext(ctx, "kustomize", "config/default-without-map")
		Expect(err).NotTo(HaveOccurred())
		Expect(string(output)).To(And(ContainSubstring("kind: ValidatingAdmissionPolicy\n"), Not(ContainSubstring("kind: Mutating"))))

		whole, err := server.KubectlContext(ctx, "kustomize", "config/default")
		Expect(err).NotTo(HaveOccurred())
		documents := func(out []byte) []string { return strings.Split(strings.TrimSpace(string(out)), "\n---\n") }
		stamps := slices.DeleteFunc(documents(whole), func(d string) bool { return slices.Contains(documents(output), d) })
		Expect(stamps).To(HaveEach(ContainSubstring("kind: Mutating")), "and lacks nothing else")
	})

	It("for Prometheus can be built", func(ctx context.Context) {
		_, err := server.KubectlContext(ctx, "kustomize", "config/prometheus")
		Expect(err).NotTo(HaveOccurred())
	})

	It("run the operator under the restricted pod security standard", func(ctx context.Context) {
		output, err := server.KubectlContext(ctx, "kustomize", "config/manager")
		Expect(err).NotTo(HaveOccurred())
		var deployment appsv1.Deployment
		for _, document := range regexp.MustCompile(`(?m)^---$`).Split(string(output), -1) {
			if strings.Contains(document, "kind: Deployment") {
				Expect(yaml.Unmarshal([]byte(document), &deployment)).To(Succeed())
			}
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: cluster.OperatorNamespace, Name: "manager"},
			Spec:       deployment.Spec.Template.Spec,
		}
		Expect(admin.Create(ctx, pod.DeepCopy(), client.DryRunAll)).To(Succeed())
		pod.Spec.Containers[0].SecurityContext = nil
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(refusedWith("violates PodSecurity"), "the namespace enforces it")
	})
})

var _ = Describe("kubectl explain", func() {
	It("has words for every field", func() {
		fields := 0
		eachSchema(func(path string, schema map[string]any) {
			properties, _ := schema["properties"].(map[string]any)
			for name, property := range properties {
				if path == "Incident" || path == "RecoveryPlan" || path == "ContainmentPolicy" {
					if name == "metadata" { // the API server describes it
						continue
					}
				}
				fields++
				Expect(property.(map[string]any)["description"]).NotTo(BeEmpty(), "%s.%s has no description", path, name)
			}
		})
		Expect(fields).To(BeNumerically(">", 100))
	})

	It("shows them", func(ctx context.Context) {
		for field, words := range map[string]string{
			"incidents.metadata":                          "Standard object's metadata",
			"incidents.spec.suspectedSince":               "the earliest time at which the targets may have been compromised",
			"containmentpolicies.spec.isolation":          "how pods are cut off",
			"recoveryplans.spec.steps.rollBackImages":     "known-good images",
			"incidents.status.pods.verdict":               "whether the pod is isolated",
			"recoveryplans.spec.images.containers.image":  "pinned by digest",
			"containmentpolicies.spec.closing":            "what it takes to close",
			"incidents.status.recovery.plan.steps.verify": "waits until what it names is healthy",
		} {
			output, err := server.KubectlContext(ctx, "explain", field)
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Join(strings.Fields(string(output)), " ")).To(ContainSubstring(words), field)
		}
	})
})
