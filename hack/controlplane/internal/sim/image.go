package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// missingImage is what an image name contains that cannot be pulled.
const missingImage = "does-not-exist"

// ImageID returns what the runtime reports for an image: the digest of the
// reference if it names one, otherwise a digest that depends on the reference
// alone, so that two tags of a repository are two images.
func ImageID(image string) string {
	repository, digest := splitDigest(image)
	if digest == "" {
		sum := sha256.Sum256([]byte(image))
		digest = "sha256:" + hex.EncodeToString(sum[:])
	}
	return stripTag(repository) + "@" + digest
}

func splitDigest(image string) (repository, digest string) {
	repository, digest, _ = strings.Cut(image, "@")
	return repository, digest
}

// stripTag removes the tag. A colon before the last slash belongs to a port.
func stripTag(repository string) string {
	slash := strings.LastIndex(repository, "/")
	if colon := strings.LastIndex(repository, ":"); colon > slash {
		return repository[:colon]
	}
	return repository
}

func pullable(image string) bool {
	return !strings.Contains(image, missingImage)
}

// containerID names the nth run of a container of a pod.
func containerID(podUID, container string, run int32) string {
	sum := sha256.Sum256([]byte(podUID + "/" + container + "/" + strconv.Itoa(int(run))))
	return "containerd://" + hex.EncodeToString(sum[:])
}
