package evidence

import (
	"context"
	"errors"
	"strings"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// contentReader answers every Get with one content, or an error.
type contentReader struct {
	client.Reader
	handle string
	err    error
}

func (c contentReader) Get(_ context.Context, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if c.err == nil {
		obj.(*snapshotv1.VolumeSnapshotContent).Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: &c.handle}
	}
	return c.err
}

func TestSnapshotLost(t *testing.T) {
	const alone = "VolumeSnapshot shop/a, VolumeSnapshotContent snapcontent-1"
	cases := map[string]struct {
		location string
		reader   contentReader
		want     string
		fails    bool
	}{
		"is there":                 {location: alone, reader: contentReader{handle: "snap-1"}},
		"is there, of a group":     {location: alone + ", VolumeGroupSnapshot shop/g", reader: contentReader{handle: "snap-1"}},
		"gone":                     {location: alone, reader: contentReader{err: apierrors.NewNotFound(schema.GroupResource{}, "snapcontent-1")}, want: "VolumeSnapshotContent snapcontent-1 does not exist any more"},
		"replaced":                 {location: alone, reader: contentReader{handle: "snap-2"}, want: `is now of snapshot "snap-2"`},
		"created again, not taken": {location: alone, reader: contentReader{}, want: "was removed and created again"},
		"API gone":                 {location: alone, reader: contentReader{err: &apimeta.NoKindMatchError{}}, fails: true},
		"no content in location":   {location: "VolumeSnapshot shop/a", want: "names no VolumeSnapshotContent"},
		"not known":                {location: alone, reader: contentReader{err: errors.New("no route")}, fails: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := SnapshotLost(t.Context(), tc.reader, &v1alpha1.EvidenceItem{Location: tc.location, Volume: "vol-1", SnapshotHandle: "snap-1"})
			if (err != nil) != tc.fails || (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("SnapshotLost() = %q, %v, want %q, failing %v", got, err, tc.want, tc.fails)
			}
		})
	}
}
