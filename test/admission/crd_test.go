package admission

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
	. "cofferdam.dev/cofferdam/test/builder"
)

type (
	incident = containmentv1alpha1.Incident
	policy   = containmentv1alpha1.ContainmentPolicy
	plan     = containmentv1alpha1.RecoveryPlan
)

// creation is a rule that looks at one object, with an object that it refuses and one that it lets pass.
type creation struct {
	message           string
	refused, accepted client.Object
}

var web = containmentv1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}

func exceptionOf(change func(*containmentv1alpha1.EvidenceException)) *policy {
	exception := containmentv1alpha1.EvidenceException{
		Name: "collector", Direction: "Egress", Ports: []containmentv1alpha1.ExceptionPort{{Port: 443}},
	}
	change(&exception)
	return Policy("p", Exception(exception))
}

func targeting(targets ...containmentv1alpha1.Target) *incident {
	return Incident(shop, "i", Targets(targets...))
}

func images(p *plan, known ...containmentv1alpha1.KnownGoodImages) *plan {
	p.Spec.Images = known
	return p
}

var creations = []creation{
	// ContainmentPolicy
	{
		message: "an exception names either a cidr, or a namespaceSelector and/or podSelector",
		refused: exceptionOf(func(e *containmentv1alpha1.EvidenceException) {
			e.CIDR, e.PodSelector = "198.51.100.7/32", Selected("", "", "app", "collector").Selector
		}),
		accepted: exceptionOf(func(e *containmentv1alpha1.EvidenceException) {
			e.PodSelector = Selected("", "", "app", "collector").Selector
		}),
	},
	{
		message:  "cidr must be an IPv4 or IPv6 block",
		refused:  exceptionOf(func(e *containmentv1alpha1.EvidenceException) { e.CIDR = "198.51.100.7" }),
		accepted: exceptionOf(func(e *containmentv1alpha1.EvidenceException) { e.CIDR = "2001:db8::/64" }),
	},
	{
		message:  "name must be lower-case letters, digits and hyphens",
		refused:  evidenceJob(func(j *containmentv1alpha1.EvidenceJob) { j.Name = "Memory image" }),
		accepted: evidenceJob(func(j *containmentv1alpha1.EvidenceJob) { j.Name = "memory-image" }),
	},
	{
		message:  "image must be pinned by digest",
		refused:  evidenceJob(func(j *containmentv1alpha1.EvidenceJob) { j.Image = "registry.example.com/forensics:latest" }),
		accepted: evidenceJob(func(j *containmentv1alpha1.EvidenceJob) { j.Image = GoodImage }),
	},
	{
		message:  "cidr must be an IPv4 or IPv6 block",
		refused:  evidenceJob(reaching("collector.example.com")),
		accepted: evidenceJob(reaching("198.51.100.7/32")),
	},
	{
		message:  "credentialsSecret goes with url",
		refused:  storing(containmentv1alpha1.EvidenceStore{CredentialsSecret: "bucket"}),
		accepted: storing(containmentv1alpha1.EvidenceStore{CredentialsSecret: "bucket", URL: "s3://evidence?region=eu-central-1"}),
	},
	{
		message:  "url must begin with s3://, gs:// or azblob://",
		refused:  storing(containmentv1alpha1.EvidenceStore{URL: "file:///etc"}),
		accepted: storing(containmentv1alpha1.EvidenceStore{URL: "gs://evidence"}),
	},
	{
		message:  "url must not contain credentials",
		refused:  storing(containmentv1alpha1.EvidenceStore{URL: "s3://key:secret@evidence"}),
		accepted: storing(containmentv1alpha1.EvidenceStore{URL: "azblob://evidence"}),
	},
	{
		message:  "encryptTo must be age public keys",
		refused:  storing(containmentv1alpha1.EvidenceStore{EncryptTo: []string{"AGE-SECRET-KEY-1"}}),
		accepted: storing(containmentv1alpha1.EvidenceStore{EncryptTo: []string{"age1" + strings.Repeat("q", 58)}}),
	},
	{
		message:  "timeAuthorityURL must be an http or https URL",
		refused:  storing(containmentv1alpha1.EvidenceStore{TimeAuthorityURL: "ftp://tsa.example.com"}),
		accepted: storing(containmentv1alpha1.EvidenceStore{TimeAuthorityURL: "https://tsa.example.com/tsr"}),
	},
	// Incident
	{
		message:  "a target has either a name or a selector",
		refused:  targeting(containmentv1alpha1.Target{Kind: "Pod"}),
		accepted: targeting(Target("Pod", "", "a"), Selected("Pod", "", "app", "a")),
	},
	{
		message:  "an empty selector would match everything in the namespace",
		refused:  targeting(Selected("Pod", "")),
		accepted: targeting(Selected("Pod", "", "app", "a")),
	},
	{
		message:  "suspectedSince lies after detectedAt",
		refused:  Incident(shop, "i", DetectedAgo(2*time.Hour), SuspectedAgo(time.Hour)),
		accepted: Incident(shop, "i", DetectedAgo(time.Hour), SuspectedAgo(2*time.Hour)),
	},
	{
		message:  "goal Recover needs recoveryPlanRef",
		refused:  Incident(shop, "i", Goal("Recover")),
		accepted: Incident(shop, "i", Goal("Recover"), UsePlan("shop")),
	},
	// RecoveryPlan
	{
		message:  "a known-good image is pinned by digest",
		refused:  images(Plan(shop, "p", Approve("a")), KnownGood("Deployment", "web", "app", "registry.k8s.io/pause:3.10")),
		accepted: images(Plan(shop, "p", Approve("a")), KnownGood("Deployment", "web", "app", GoodImage)),
	},
	{
		message:  "Secrets are not read by Cofferdam",
		refused:  Plan(shop, "p", Verify("v", "v1", "Secret", "s", "")),
		accepted: Plan(shop, "p", Verify("v", "v1", "ConfigMap", "s", "")),
	},
	{
		message: "a step has exactly one of rollBackImages, restoreVolumes, scale, rotateSecrets, runJob, verify, approve, notify, release, pauseGitOps, resumeGitOps",
		refused: Plan(shop, "p", containmentv1alpha1.RecoveryStep{
			Name: "a", Approve: Approve("a").Approve, Verify: Verify("a", "v1", "Pod", "x", "").Verify,
		}),
		accepted: Plan(shop, "p", Approve("a"), Verify("b", "v1", "Pod", "x", "")),
	},
	{
		message:  "a step has exactly one of rollBackImages, restoreVolumes, scale, rotateSecrets, runJob, verify, approve, notify, release",
		refused:  Plan(shop, "p", containmentv1alpha1.RecoveryStep{Name: "a"}),
		accepted: Plan(shop, "p", Notify("a", "it begins", nil), Notify("b", "it is over", nil, "oncall")),
	},
	{
		message:  "a step cannot depend on itself",
		refused:  Plan(shop, "p", Approve("a", "a")),
		accepted: Plan(shop, "p", Approve("a"), Approve("b", "a")),
	},
	{
		message:  "the names close, waive-gaps and remove-evidence are reserved",
		refused:  Plan(shop, "p", Approve("close")),
		accepted: Plan(shop, "p", Approve("closing")),
	},
	{
		message:  "the names close, waive-gaps and remove-evidence are reserved",
		refused:  Plan(shop, "p", Approve("waive-gaps")),
		accepted: Plan(shop, "p", Approve("waive")),
	},
	{
		message:  "the names close, waive-gaps and remove-evidence are reserved",
		refused:  Plan(shop, "p", Approve("remove-evidence")),
		accepted: Plan(shop, "p", Approve("remove")),
	},
	{
		message:  "a step's name consists of lower-case letters, digits and dashes",
		refused:  Plan(shop, "p", Approve("Sign off")),
		accepted: Plan(shop, "p", Approve("sign-off-2")),
	},
	{
		message:  "dependsOn names a step that the plan does not have",
		refused:  Plan(shop, "p", Approve("a", "b")),
		accepted: Plan(shop, "p", Approve("a", "b"), Approve("b")),
	},
	{
		message:  "a release step depends directly on an approve step",
		refused:  Plan(shop, "p", Approve("a"), Verify("v", "v1", "Pod", "x", "", "a"), Release("r", "v")),
		accepted: Plan(shop, "p", Approve("a"), Release("r", "a")),
	},
	{
		message:  "a workload of a rollBackImages step has no known-good images",
		refused:  images(Plan(shop, "p", RollBack("r", web)), KnownGood("StatefulSet", "web", "app", GoodImage)),
		accepted: images(Plan(shop, "p", RollBack("r", web)), KnownGood("Deployment", "web", "app", GoodImage)),
	},
	{
		message: "a workload of a release step is rolled back by no step of the plan",
		refused: images(Plan(shop, "p", RollBack("r", web), Approve("a"), wave(containmentv1alpha1.WorkloadRef{Kind: "StatefulSet", Name: "web"})),
			KnownGood("Deployment", "web", "app", GoodImage)),
		accepted: images(Plan(shop, "p", RollBack("r", web), Approve("a"), wave(web)), KnownGood("Deployment", "web", "app", GoodImage)),
	},
	{
		message:  "say where managers may be paused",
		refused:  Plan(shop, "p", containmentv1alpha1.RecoveryStep{Name: "g", PauseGitOps: &containmentv1alpha1.PauseGitOpsStep{LeaseSeconds: 60}}),
		accepted: Plan(shop, "p", PauseGitOps("g", []string{"argocd"}, nil), ResumeGitOps("r", "g")),
	},
	{
		message:  "a plan has at most one pauseGitOps step",
		refused:  Plan(shop, "p", PauseGitOps("g", []string{"argocd"}, nil), PauseGitOps("h", []string{"argocd"}, nil)),
		accepted: Plan(shop, "p", PauseGitOps("g", []string{"argocd", "apps"}, []string{"flux-system", "apps"})),
	},
	{
		message:  "a plan with a resumeGitOps step has a pauseGitOps step",
		refused:  Plan(shop, "p", Approve("a"), ResumeGitOps("r", "a")),
		accepted: Plan(shop, "p", PauseGitOps("g", nil, []string{"flux-system"}), ResumeGitOps("r", "g")),
	},
	{
		message:  "watched objects are observed for observeSeconds",
		refused:  Plan(shop, "p", Approve("a"), watched(0)),
		accepted: Plan(shop, "p", Approve("a"), watched(60)),
	},
	{
		message:  "what a release watches is looked at again and again",
		refused:  Plan(shop, "p", Approve("a"), watching(containmentv1alpha1.VerifyStep{TCP: []containmentv1alpha1.TCPCheck{{Host: "db", Port: 5432}}})),
		accepted: Plan(shop, "p", Approve("a"), watching(containmentv1alpha1.VerifyStep{Prometheus: []containmentv1alpha1.PrometheusCheck{{Source: "main", Query: "up", Expression: "value == 1"}}})),
	},
	{
		message:  "nothing is rotated",
		refused:  Plan(shop, "p", rotating(func(r *containmentv1alpha1.RotateSecretsStep) { r.Generate = nil })),
		accepted: Plan(shop, "p", rotating(func(*containmentv1alpha1.RotateSecretsStep) {})),
	},
	{
		message:  "restart Listed takes workloads",
		refused:  Plan(shop, "p", rotating(func(r *containmentv1alpha1.RotateSecretsStep) { r.Restart = "Listed" })),
		accepted: Plan(shop, "p", rotating(listing("Listed"))),
	},
	{
		message:  "restart None takes no workloads",
		refused:  Plan(shop, "p", rotating(listing("None"))),
		accepted: Plan(shop, "p", rotating(func(r *containmentv1alpha1.RotateSecretsStep) { r.Restart = "None" })),
	},
	{
		message:  "nothing is looked at",
		refused:  Plan(shop, "p", looking(containmentv1alpha1.VerifyStep{ProbeSeconds: 30})),
		accepted: Plan(shop, "p", looking(containmentv1alpha1.VerifyStep{Job: containmentv1alpha1.RunJobStep{Image: GoodImage}})),
	},
	{
		message:  "the url of a check is an http or https URL",
		refused:  Plan(shop, "p", looking(containmentv1alpha1.VerifyStep{HTTP: []containmentv1alpha1.HTTPCheck{{URL: "web/healthz"}}})),
		accepted: Plan(shop, "p", looking(containmentv1alpha1.VerifyStep{HTTP: []containmentv1alpha1.HTTPCheck{{URL: "http://web/healthz"}, {URL: "https://web:8443/"}}})),
	},
	{
		message:  "the name of an endpoint consists of lower-case letters, digits and dashes",
		refused:  prometheus(containmentv1alpha1.Endpoint{Name: "Main one", URL: "https://prometheus.example.com"}),
		accepted: prometheus(containmentv1alpha1.Endpoint{Name: "main-1", URL: "https://prometheus.example.com"}),
	},
	{
		message:  "the url of an endpoint is an http or https URL without credentials",
		refused:  prometheus(containmentv1alpha1.Endpoint{Name: "main", URL: "https://user:password@prometheus.example.com"}),
		accepted: prometheus(containmentv1alpha1.Endpoint{Name: "main", URL: "https://prometheus.example.com/tenant"}),
	},
	{
		message:  "an http URL that is not on the loopback address takes plaintext Allow",
		refused:  prometheus(containmentv1alpha1.Endpoint{Name: "main", URL: "http://prometheus.monitoring:9090"}),
		accepted: prometheus(containmentv1alpha1.Endpoint{Name: "main", URL: "http://prometheus.monitoring:9090", Plaintext: "Allow"}),
	},
	{
		message:  "an http URL that is not on the loopback address takes plaintext Allow",
		refused:  prometheus(containmentv1alpha1.Endpoint{Name: "main", URL: "http://127.0.0.1.example.com"}),
		accepted: prometheus(containmentv1alpha1.Endpoint{Name: "main", URL: "http://127.0.0.1:9090"}, containmentv1alpha1.Endpoint{Name: "six", URL: "http://[::1]:9090"}),
	},
	{
		message:  "the image of a job is pinned by digest",
		refused:  Plan(shop, "p", RunJob("j", "registry.k8s.io/pause:3.10")),
		accepted: Plan(shop, "p", RunJob("j", GoodImage)),
	},
	{
		message:  "the image of a check is pinned by digest",
		refused:  Plan(shop, "p", checked("registry.k8s.io/pause:3.10")),
		accepted: Plan(shop, "p", checked(GoodImage), RestoreVolumes("unchecked", nil, "log-db-0")),
	},
	{
		message:  "path says where an image stands in the owner",
		refused:  planWithOwner(func(i *containmentv1alpha1.KnownGoodImages) { i.Containers[0].Path = "" }),
		accepted: planWithOwner(func(*containmentv1alpha1.KnownGoodImages) {}),
	},
	{
		message: "path says where an image stands in the owner",
		refused: planWithOwner(func(i *containmentv1alpha1.KnownGoodImages) { i.Owner = containmentv1alpha1.WorkloadOwner{} }),
		accepted: planWithOwner(func(i *containmentv1alpha1.KnownGoodImages) {
			i.Containers = append(i.Containers, containmentv1alpha1.ContainerImage{Name: "proxy", Image: GoodImage, FoundIn: containmentv1alpha1.InPods})
		}),
	},
	{
		message:  "a path is a JSON pointer below /spec",
		refused:  planWithOwner(func(i *containmentv1alpha1.KnownGoodImages) { i.Containers[0].Path = "/metadata/annotations/image" }),
		accepted: planWithOwner(func(i *containmentv1alpha1.KnownGoodImages) { i.Containers[0].Path = "/spec/nodes/0/image~1name" }),
	},
	{
		message:  "Secrets are neither read nor changed by Cofferdam",
		refused:  planWithOwner(func(i *containmentv1alpha1.KnownGoodImages) { i.Owner.Kind = "Secret" }),
		accepted: planWithOwner(func(i *containmentv1alpha1.KnownGoodImages) { i.Owner.Kind = "SealedSecret" }),
	},
	{
		message:  "restore Template takes the revisions that only Deployments, StatefulSets and DaemonSets keep",
		refused:  planWithImages(wholeTemplate("CronJob")),
		accepted: planWithImages(wholeTemplate("DaemonSet"), RollBack("images", containmentv1alpha1.WorkloadRef{Kind: "DaemonSet", Name: "a"})),
	},
	{
		message: "from names fewer people than are required",
		refused: Plan(shop, "p", approveBy(2, "ann")), accepted: Plan(shop, "p", approveBy(2, "ann", "bob")),
	},
	{
		message:  "approve and release steps have onFailure Halt",
		refused:  Plan(shop, "p", onFailure(Approve("a"), "Continue")),
		accepted: Plan(shop, "p", onFailure(Approve("a"), "Halt"), onFailure(Verify("v", "v1", "Pod", "x", ""), "Continue")),
	},
	{
		message:  "approve and release steps have onFailure Halt",
		refused:  Plan(shop, "p", Approve("a"), onFailure(Release("r", "a"), "Undo")),
		accepted: Plan(shop, "p", Approve("a"), onFailure(Release("r", "a"), "Halt"), onFailure(Verify("v", "v1", "Pod", "x", ""), "Undo")),
	},
	{
		message:  "a restoreVolumes step has onFailure Halt or Undo",
		refused:  Plan(shop, "p", onFailure(RestoreVolumes("v", nil, "data"), "Continue")),
		accepted: Plan(shop, "p", onFailure(RestoreVolumes("v", nil, "data"), "Undo")),
	},
	{
		message:  "known-good images are either listed in containers, or chosen",
		refused:  images(Plan(shop, "p", Approve("a")), KnownGood("Deployment", "web")),
		accepted: images(Plan(shop, "p", Approve("a")), ChosenImages("Deployment", "web"), KnownGood("Deployment", "other", "app", GoodImage)),
	},
	{
		message: "known-good images are either listed in containers, or chosen",
		refused: images(Plan(shop, "p", Approve("a")), func() containmentv1alpha1.KnownGoodImages {
			both := KnownGood("Deployment", "web", "app", GoodImage)
			both.Choose = containmentv1alpha1.ImagesOfNewestRevision
			return both
		}()),
		accepted: images(Plan(shop, "p", Approve("a")), ChosenImages("DaemonSet", "web")),
	},
	{
		message:  "only Deployments, StatefulSets and DaemonSets have revisions to choose from",
		refused:  images(Plan(shop, "p", Approve("a")), ChosenImages("CronJob", "web")),
		accepted: images(Plan(shop, "p", Approve("a")), ChosenImages("StatefulSet", "web")),
	},
	{
		message:  "a signer has either a publicKey or a keyless identity",
		refused:  verifying(containmentv1alpha1.ImageSigner{Name: "a"}),
		accepted: verifying(containmentv1alpha1.ImageSigner{Name: "a", PublicKey: "PEM"}),
	},
	{
		message:  "a signer has either a publicKey or a keyless identity",
		refused:  verifying(containmentv1alpha1.ImageSigner{Name: "a", PublicKey: "PEM", Keyless: byIdentity}),
		accepted: verifying(containmentv1alpha1.ImageSigner{Name: "a", Keyless: byIdentity}),
	},
	{
		message:  "a keyless signer has either an identity or an identityRegexp",
		refused:  verifying(containmentv1alpha1.ImageSigner{Name: "a", Keyless: containmentv1alpha1.KeylessIdentity{Issuer: "https://i"}}),
		accepted: verifying(containmentv1alpha1.ImageSigner{Name: "a", Keyless: containmentv1alpha1.KeylessIdentity{Issuer: "https://i", IdentityRegexp: ".*"}}),
	},
	{
		message: "a workload is listed twice in images",
		refused: images(Plan(shop, "p", Approve("a")),
			KnownGood("Deployment", "web", "app", GoodImage), KnownGood("Deployment", "web", "sidecar", GoodImage)),
		accepted: images(Plan(shop, "p", Approve("a")),
			KnownGood("Deployment", "web", "app", GoodImage, "sidecar", GoodImage), KnownGood("StatefulSet", "web", "app", GoodImage)),
	},
}

var byIdentity = containmentv1alpha1.KeylessIdentity{Issuer: "https://issuer.example.com", Identity: "ann@example.com"}

// verifying makes a plan that verifies its images.
func verifying(signers ...containmentv1alpha1.ImageSigner) *plan {
	p := Plan(shop, "p", Approve("a"))
	p.Spec.Verification = &containmentv1alpha1.ImageVerification{Signers: signers}
	return p
}

func wave(workloads ...containmentv1alpha1.WorkloadRef) containmentv1alpha1.RecoveryStep {
	step := Release("w", "a")
	step.Release.Workloads = workloads
	return step
}

func watched(seconds int32) containmentv1alpha1.RecoveryStep {
	step := Release("w", "a")
	step.Release.Watched = *Verify("v", "v1", "Pod", "x", "").Verify
	step.Release.ObserveSeconds = seconds
	return step
}

// prometheus makes a ContainmentPolicy that names Prometheus servers.
func prometheus(endpoints ...containmentv1alpha1.Endpoint) *policy {
	return Policy("p", func(p *policy) { p.Spec.Recovery.Prometheus = endpoints })
}

func looking(what containmentv1alpha1.VerifyStep) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: "look", Verify: &what}
}

func watching(what containmentv1alpha1.VerifyStep) containmentv1alpha1.RecoveryStep {
	step := watched(60)
	step.Release.Watched = what
	return step
}

// rotating makes a step that rotates a Secret.
func rotating(change func(*containmentv1alpha1.RotateSecretsStep)) containmentv1alpha1.RecoveryStep {
	step := Rotate("r", "s", nil, "password")
	change(step.RotateSecrets)
	return step
}

func listing(mode containmentv1alpha1.RestartMode) func(*containmentv1alpha1.RotateSecretsStep) {
	return func(r *containmentv1alpha1.RotateSecretsStep) {
		r.Restart, r.Workloads = mode, []containmentv1alpha1.RestartedWorkload{{Kind: "Deployment", Name: "web"}}
	}
}

func wholeTemplate(kind containmentv1alpha1.RecoverableKind) containmentv1alpha1.RecoveryStep {
	step := RollBack("r", containmentv1alpha1.WorkloadRef{Kind: kind, Name: "a"})
	step.RollBackImages.Restore = containmentv1alpha1.RestoredTemplate
	return step
}

// planWithImages is a plan of steps that roll back the workload "a" of the first one's kind.
func planWithImages(steps ...containmentv1alpha1.RecoveryStep) *containmentv1alpha1.RecoveryPlan {
	plan := Plan(shop, "p", steps...)
	plan.Spec.Images = []containmentv1alpha1.KnownGoodImages{KnownGood(steps[0].RollBackImages.Workloads[0].Kind, "a", "app", GoodImage)}
	return plan
}

// planWithOwner is a plan that changes an image in what keeps the workload "a".
func planWithOwner(change func(*containmentv1alpha1.KnownGoodImages)) *containmentv1alpha1.RecoveryPlan {
	plan := planWithImages(RollBack("r", containmentv1alpha1.WorkloadRef{Kind: "Deployment", Name: "a"}))
	plan.Spec.Images[0].Owner = containmentv1alpha1.WorkloadOwner{APIVersion: "example.com/v1", Kind: "Database", Name: "main"}
	plan.Spec.Images[0].Containers[0].Path = "/spec/image"
	change(&plan.Spec.Images[0])
	return plan
}

func checked(image string) containmentv1alpha1.RecoveryStep {
	step := RestoreVolumes("r", nil, "data-db-0")
	step.RestoreVolumes.Check = containmentv1alpha1.VolumeCheck{Image: image}
	return step
}

func approveBy(required int32, from ...string) containmentv1alpha1.RecoveryStep {
	step := Approve("a")
	step.Approve.Required, step.Approve.From = required, from
	return step
}

func onFailure(step containmentv1alpha1.RecoveryStep, what containmentv1alpha1.OnFailure) containmentv1alpha1.RecoveryStep {
	step.OnFailure = what
	return step
}

// evidenceJob makes a ContainmentPolicy with one evidence job.
func evidenceJob(change func(*containmentv1alpha1.EvidenceJob)) *policy {
	job := containmentv1alpha1.EvidenceJob{Name: "memory", Image: GoodImage}
	change(&job)
	return Policy("p", func(p *policy) { p.Spec.Evidence.Jobs = []containmentv1alpha1.EvidenceJob{job} })
}

func reaching(cidr string) func(*containmentv1alpha1.EvidenceJob) {
	return func(j *containmentv1alpha1.EvidenceJob) {
		j.Egress = []containmentv1alpha1.EvidenceJobEgress{{CIDR: cidr, Ports: []containmentv1alpha1.ExceptionPort{{Port: 443}}}}
	}
}

// storing makes a ContainmentPolicy with an evidence store.
func storing(store containmentv1alpha1.EvidenceStore) *policy {
	return Policy("p", func(p *policy) { p.Spec.Evidence.Store = store })
}

// shapes are refusals that come from the schema itself.
var shapes = []creation{
	{message: "Duplicate value", refused: Plan(shop, "p", Approve("a"), Approve("a")), accepted: Plan(shop, "p", Approve("a"), Approve("b"))},
	{
		message: "Duplicate value",
		refused: Policy("p", Exception(exceptionOf(func(e *containmentv1alpha1.EvidenceException) { e.CIDR = "198.51.100.0/24" }).Spec.Isolation.Exceptions[0]),
			Exception(exceptionOf(func(e *containmentv1alpha1.EvidenceException) { e.CIDR = "203.0.113.0/24" }).Spec.Isolation.Exceptions[0])),
		accepted: exceptionOf(func(e *containmentv1alpha1.EvidenceException) { e.CIDR = "203.0.113.0/24" }),
	},
	{message: "spec.severity: Unsupported value", refused: Incident(shop, "i", Severity("Terrible")), accepted: Incident(shop, "i", Severity("Critical"))},
	{message: "spec.compromisedDigests[0]", refused: Incident(shop, "i", Compromised("ee6521f2")), accepted: Incident(shop, "i", Compromised(digestA, digestB))},
	{message: "spec.targets: Required value", refused: Incident(shop, "i", Targets()), accepted: Incident(shop, "i")},
	{message: "spec: Required value", refused: Plan(shop, "p"), accepted: Plan(shop, "p", Approve("a"))},
	{
		message:  "spec.limits.maxPods",
		refused:  Policy("p", func(p *policy) { p.Spec.Limits.MaxPods = 201 }),
		accepted: Policy("p", func(p *policy) { p.Spec.Limits.MaxPods = 200 }),
	},
}

// transition is a rule that compares an Incident with what it was.
type transition struct {
	message           string
	before            func(*incident)
	refused, accepted func(*incident)
}

var transitions = []transition{
	{
		message:  "the goal never moves back",
		before:   func(i *incident) { i.Spec.Goal = "Recover"; UsePlan("shop")(i) },
		refused:  Goal("Contain"),
		accepted: Goal("Close"),
	},
	{message: "the goal never moves back", before: Goal("Close"), refused: Goal("Contain"), accepted: Severity("Low")},
	{
		message: "the goal never moves back",
		before:  func(i *incident) { i.Spec.Goal = "Close"; UsePlan("shop")(i) },
		refused: Goal("Recover"), accepted: Severity("Low"),
	},
	{message: "an Incident that is enforced never goes back to DryRun", before: Mode("Enforce"), refused: Mode("DryRun"), accepted: Severity("Low")},
	{
		message:  "a target is never removed from an Incident that is enforced",
		before:   Mode("Enforce"),
		refused:  Targets(Target("Deployment", "", "other")),
		accepted: Targets(Target("Deployment", "", "other"), Target("Deployment", "", "web")),
	},
	{
		message:  "a compromised digest is never removed from an Incident that is enforced",
		before:   Compromised(digestA),
		refused:  Compromised(digestB),
		accepted: Compromised(digestB, digestA),
	},
	{
		message:  "a compromised digest is never removed from an Incident that is enforced",
		before:   Compromised(digestA),
		refused:  Compromised(),
		accepted: Severity("Low"),
	},
	{message: "policyRef cannot change once the Incident is enforced", before: UsePolicy("a"), refused: UsePolicy("b"), accepted: UsePolicy("a")},
	{
		message: "policyRef cannot change once the Incident is enforced",
		before:  Mode("Enforce"), refused: UsePolicy("b"), accepted: Severity("Low"),
	},
	{message: "detectedAt cannot change", before: DetectedAgo(time.Hour), refused: DetectedAgo(2 * time.Hour), accepted: Severity("Low")},
	{message: "declaredBy cannot change", before: Severity("High"), refused: DeclaredBy("somebody-else"), accepted: Severity("Low")},
	{
		message:  "an approval is never changed or removed",
		before:   Severity("High"),
		refused:  func(i *incident) { i.Spec.Approvals[0].Comment = "as agreed" },
		accepted: Severity("Low"),
	},
	{
		message:  "an approval is never changed or removed",
		before:   Severity("High"),
		refused:  func(i *incident) { i.Spec.Approvals = nil },
		accepted: Severity("Low"),
	},
	{
		message:  "an intervention is never changed or removed",
		before:   Intervention("a", "Skip", "chief"),
		refused:  func(i *incident) { i.Spec.Interventions = nil },
		accepted: Severity("Low"),
	},
	{
		message:  "an intervention is never changed or removed",
		before:   Intervention("a", "Skip", "chief"),
		refused:  func(i *incident) { i.Spec.Interventions[0].Action = "Undo" },
		accepted: Severity("Low"),
	},
	{
		message:  "recovery is not taken away: set paused to false",
		before:   recoveryHeld(true, "lead"),
		refused:  func(i *incident) { i.Spec.Recovery = containmentv1alpha1.RecoveryControl{} },
		accepted: Severity("Low"),
	},
	// What is free in DryRun.
	{message: "", before: Mode("DryRun"), accepted: Targets(Target("Deployment", "", "other"))},
	{message: "", before: func(i *incident) { i.Spec.Mode = "DryRun"; Compromised(digestA)(i) }, accepted: Compromised()},
	{message: "", before: func(i *incident) { i.Spec.Mode = "DryRun"; UsePolicy("a")(i) }, accepted: UsePolicy("b")},
	{message: "", before: Mode("DryRun"), accepted: Mode("Enforce")},
}

var _ = Describe("The rules of the CRDs", func() {
	for _, c := range append(creations, shapes...) {
		It("on creation: "+c.message, func(ctx context.Context) {
			Expect(admin.Create(ctx, c.refused.DeepCopyObject().(client.Object), client.DryRunAll)).To(refusedWith(c.message))
			Expect(admin.Create(ctx, c.accepted.DeepCopyObject().(client.Object), client.DryRunAll)).To(Succeed())
		})
	}

	for _, t := range transitions {
		It("on update: "+t.message, func(ctx context.Context) {
			object := Incident(shop, fresh(), t.before)
			added := object.Spec.Interventions
			object.Spec.Interventions = nil
			Expect(lead.Create(ctx, object)).To(Succeed())
			if len(added) > 0 {
				begin(ctx, object, "a")
				object.Spec.Interventions = added
				Expect(chief.Update(ctx, object)).To(Succeed())
			}
			Approval("close", "chief", "sha256:1")(object)
			Expect(chief.Update(ctx, object)).To(Succeed())

			if t.refused != nil {
				refused := object.DeepCopy()
				t.refused(refused)
				Expect(admin.Update(ctx, refused, client.DryRunAll)).To(refusedWith(t.message))
			}
			t.accepted(object)
			Expect(admin.Update(ctx, object, client.DryRunAll)).To(Succeed())
		})
	}

	It("are all in the tables above", func() {
		tried := []string{}
		for _, c := range creations {
			tried = append(tried, c.message)
		}
		for _, t := range transitions {
			if t.message != "" {
				tried = append(tried, t.message)
			}
		}
		written := ruleMessages()
		Expect(written).NotTo(BeEmpty())
		for _, message := range written {
			Expect(tried).To(ContainElement(Satisfy(func(prefix string) bool { return hasPrefix(message, prefix) })),
				"no test for the rule %q", message)
		}
	})
})

func hasPrefix(message, prefix string) bool {
	return len(message) >= len(prefix) && message[:len(prefix)] == prefix
}

// ruleMessages are the messages of all CEL rules in the CRDs.
func ruleMessages() []string {
	GinkgoHelper()
	found := map[string]bool{}
	eachSchema(func(_ string, schema map[string]any) {
		rules, _ := schema["x-kubernetes-validations"].([]any)
		for _, rule := range rules {
			found[rule.(map[string]any)["message"].(string)] = true
		}
	})
	messages := make([]string, 0, len(found))
	for message := range found {
		messages = append(messages, message)
	}
	return messages
}

// eachSchema visits every schema in the CRDs with its path.
func eachSchema(visit func(path string, schema map[string]any)) {
	GinkgoHelper()
	files, err := filepath.Glob(filepath.Join(server.Root, "config", "crd", "bases", "*.yaml"))
	Expect(err).NotTo(HaveOccurred())
	Expect(files).To(HaveLen(3))
	for _, file := range files {
		content, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		var definition map[string]any
		Expect(yaml.Unmarshal(content, &definition)).To(Succeed())
		spec := definition["spec"].(map[string]any)
		kind := spec["names"].(map[string]any)["kind"].(string)
		for _, version := range spec["versions"].([]any) {
			walk(kind, version.(map[string]any)["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any), visit)
		}
	}
}

func walk(path string, schema map[string]any, visit func(string, map[string]any)) {
	visit(path, schema)
	if properties, ok := schema["properties"].(map[string]any); ok {
		for name, property := range properties {
			walk(path+"."+name, property.(map[string]any), visit)
		}
	}
	for _, inner := range []string{"items", "additionalProperties"} {
		if schema, ok := schema[inner].(map[string]any); ok {
			walk(path, schema, visit)
		}
	}
}
