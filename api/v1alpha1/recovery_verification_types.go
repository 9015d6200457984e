package v1alpha1

// KeylessIdentity is who has signed an image with a certificate of Fulcio.
// +kubebuilder:validation:XValidation:rule="has(self.identity) != has(self.identityRegexp)",message="a keyless signer has either an identity or an identityRegexp"
type KeylessIdentity struct {
	// issuer is the OIDC issuer that has vouched for the signer, such as "https://token.actions.githubusercontent.com".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Issuer string `json:"issuer,omitempty"`

	// identity is the subject of the certificate, such as "https://github.com/acme/shop/.github/workflows/release.yaml@refs/heads/main" or an e-mail address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Identity string `json:"identity,omitempty"`

	// identityRegexp is a regular expression (RE2) that the whole subject matches, from its first character to its last.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	IdentityRegexp string `json:"identityRegexp,omitempty"`
}

// ImageSigner is somebody whose signature makes an image trustworthy.
// +kubebuilder:validation:XValidation:rule="has(self.publicKey) != has(self.keyless)",message="a signer has either a publicKey or a keyless identity"
type ImageSigner struct {
	// name tells the signer apart from the others of the plan, in messages.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// repositories are the repositories for whose images the signer's word counts: "registry.example.com/shop/web", or "registry.example.com/shop/*" for all below it. If not set, it counts for every image.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	Repositories []string `json:"repositories,omitempty"`

	// publicKey is the signer's public key in PEM form, as "cosign public-key" prints it. Signatures by it are looked for as Sigstore bundles and as the older ".sig" tags of cosign.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	PublicKey string `json:"publicKey,omitempty"`

	// keyless is the signer's identity in a certificate. It is verified with the trusted root that the manager was given (--sigstore-trusted-root). Signatures are looked for as Sigstore bundles.
	// +optional
	Keyless KeylessIdentity `json:"keyless,omitempty,omitzero"`
}

// ImageVerification is what has to be known of every image of a plan before anything is changed: that the registry has it under its digest, and whose signature it carries.
type ImageVerification struct {
	// signers are those of whom one has to have signed each image. An image in whose repository no signer's word counts is refused, unless it is listed in unsignedRepositories. If not set, images need not be signed;
	// they only have to exist.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Signers []ImageSigner `json:"signers,omitempty"`

	// unsignedRepositories are repositories, written as in signers, whose images need not be signed; they only have to exist.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	UnsignedRepositories []string `json:"unsignedRepositories,omitempty"`
}

// MaxVerifiedImages is how many distinct images a plan may have that verifies them.
const MaxVerifiedImages = 64

// VerifiedImage is what was found out about an image when the recovery began.
type VerifiedImage struct {
	// image is the image, as the plan names it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Image string `json:"image,omitempty"`

	// digests are what a node may report as its imageID: its own digest, and those of its manifests and configurations for the platforms that it exists for.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=71
	Digests []string `json:"digests,omitempty"`

	// signer is the name of the signer, in the plan, whose signature was verified; empty where none is required.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Signer string `json:"signer,omitempty"`
}
