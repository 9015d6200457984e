package sim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImageID(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	cases := map[string]struct{ image, want string }{
		"a digest is kept":                 {"example.org/app@" + digest, "example.org/app@" + digest},
		"a tag beside a digest is dropped": {"example.org/app:1@" + digest, "example.org/app@" + digest},
		"a port is not a tag":              {"example.org:5000/app@" + digest, "example.org:5000/app@" + digest},
		"a port and a tag are told apart":  {"example.org:5000/app:1@" + digest, "example.org:5000/app@" + digest},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := ImageID(tc.image)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ImageID(%q) mismatch (-want +got):\n%s", tc.image, diff)
			}
		})
	}
}

func TestImageIDOfATag(t *testing.T) {
	repository, digest, _ := strings.Cut(ImageID("example.org:5000/app:1"), "@sha256:")
	if repository != "example.org:5000/app" || len(digest) != 64 {
		t.Errorf("got repository %q and digest %q", repository, digest)
	}
	if first, second := ImageID("app:1"), ImageID("app:1"); first != second {
		t.Error("the same reference gave two digests")
	}
	if ImageID("app:1") == ImageID("app:2") {
		t.Error("two tags gave the same digest")
	}
}
