package evidence

import (
	"context"
	"fmt"
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// A snapshot that somebody deletes while it is being taken is taken again. What was taken first is retained by then, and may be all that is left of what the volume had at the time: the item goes on
// naming it.

// maxEarlier is how often a snapshot that was retained is taken again.
const maxEarlier = 8

// supersede is the item when it is about to be kept in another content than the one that its location names, or, with "", when it is about to be taken anew.
func supersede(item v1alpha1.EvidenceItem, content string) v1alpha1.EvidenceItem {
	if _, before := located(item); before != "" && before != content && !slices.Contains(item.Earlier, before) {
		item.Earlier = append(slices.Clone(item.Earlier), before)
	}
	return item
}

// tooOften says why the snapshot of an item is not taken once more, or "".
func tooOften(item v1alpha1.EvidenceItem) string {
	if len(item.Earlier) < maxEarlier {
		return ""
	}
	return fmt.Sprintf("its snapshot was deleted by somebody else %d times; what was taken is retained in %s", len(item.Earlier), earlierContents(item))
}

func earlierContents(item v1alpha1.EvidenceItem) string {
	return contentKind + " " + strings.Join(item.Earlier, ", "+contentKind+" ")
}

// Whereabouts says where an item is kept, and what was taken for it before.
func Whereabouts(item v1alpha1.EvidenceItem) string {
	if len(item.Earlier) == 0 {
		return item.Location
	}
	return strings.TrimPrefix(item.Location+", and, taken before, "+earlierContents(item), ", and, ")
}

// removeEarlier removes what was taken for an item before, and reports whether it is gone.
func (g *groups) removeEarlier(ctx context.Context, item v1alpha1.EvidenceItem) (bool, error) {
	for _, name := range item.Earlier {
		var content snapshotv1.VolumeSnapshotContent
		found, err := g.find(ctx, client.ObjectKey{Name: name}, &content)
		if err != nil {
			return false, err
		}
		if !found {
			g.settleRemoval("", "", name)
			continue
		}
		ref := refOf(contentKind, &content)
		marked := content.Labels[v1alpha1.EvidenceLabel] == evidenceKept || g.x.Journal.Intended(v1alpha1.ActionDeleteSnapshot, ref)
		if content.Spec.VolumeSnapshotRef.Namespace != item.Subject.Namespace || !marked {
			continue // a namesake
		}
		if content.DeletionTimestamp.IsZero() {
			if ended, err := g.unretain(ctx, ref, &content, string(content.Spec.DeletionPolicy)); err != nil || !ended {
				return false, err
			}
		}
		return false, g.approvedDelete(ctx, ref, &content)
	}
	return true, nil
}
