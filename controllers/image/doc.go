// Package image finds out what registries know about images: whether they exist under their digests, what nodes will report when they run them, and who has signed them. It changes nothing.
package image

// State is what is known about an image.
type State int

const (
	// Unknown says that it could not be found out, and that looking again may help.
	Unknown State = iota
	// Good says that the image is everything that the plan asks for.
	Good
	// Missing says that the registry does not have it under its digest.
	Missing
	// Unverified says that it carries no signature of those that the plan asks for.
	Unverified
)

// Verdict is what was found out about an image.
type Verdict struct {
	State State
	// Why says why the image is not good, or not known to be.
	Why string
	// Digests are what a node may report as imageID: those of the image, and of its manifests and configurations for every platform.
	Digests []string
	// Signer is the name of the signer whose signature was verified; empty where none is asked for.
	Signer string
}
