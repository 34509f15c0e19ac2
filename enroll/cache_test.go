// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// heavy returns a Lease of the given name with long texts in its metadata and its spec.
func heavy(name string) *coordinationv1.Lease {
	long := strings.Repeat("x", 1<<18)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: shop, Name: name, UID: "uid", ResourceVersion: "7", Labels: map[string]string{api.ManagedLabel: managed, "app": long},
			Annotations: map[string]string{
				"note": long, api.AddressAnnotation: long, api.PausedAnnotation: long, api.DoneAnnotation: long, api.OpenedAnnotation: long, api.StampAnnotation: long,
			},
			OwnerReferences: []metav1.OwnerReference{{Name: long}, {Kind: long}}, Finalizers: []string{long},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &long, PreferredHolder: &long, Strategy: new(coordinationv1.CoordinatedLeaseStrategy(long)), LeaseDurationSeconds: new(int32(30))},
	}
}

func TestEnrollsCacheBoundsTheMemoryOfEachLease(t *testing.T) {
	for _, name := range []string{"lock.a", "junk"} {
		kept, err := strip(heavy(name))
		require.NoError(t, err)
		text, err := json.Marshal(kept)
		require.NoError(t, err)
		assert.Less(t, len(text), 4<<10, name)
	}
}

// Enroll reads the same facts from the stripped Lease as from the whole Lease.
func TestStrippedLeaseKeepsAllFactsThatEnrollReads(t *testing.T) {
	for name, change := range map[string]func(*coordinationv1.Lease){
		"as enroll makes the Lease": func(*coordinationv1.Lease) {},
		"held":                      func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new(strings.Repeat("a", 253) + "_uid") },
		"released":                  func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("") },
		"paused":                    func(l *coordinationv1.Lease) { l.Annotations = map[string]string{api.PausedAnnotation: ""} },
		"done": func(l *coordinationv1.Lease) {
			l.Annotations = map[string]string{api.DoneAnnotation: strings.Repeat("a,", 2000)}
		},
		"open": func(l *coordinationv1.Lease) {
			l.Annotations, l.OwnerReferences = map[string]string{api.OpenedAnnotation: "32"}, []metav1.OwnerReference{{Kind: "Job"}}
		},
		"open without a Job": func(l *coordinationv1.Lease) { l.Annotations = map[string]string{api.OpenedAnnotation: "32"} },
		"stamped": func(l *coordinationv1.Lease) {
			l.Annotations = map[string]string{api.StampAnnotation: api.Stamp{Epoch: 1 << 62, Count: 64, Run: strings.Repeat("r", 253), Closed: true}.String()}
		},
		"of another program": func(l *coordinationv1.Lease) { l.Labels = map[string]string{api.ManagedLabel: "helm"} },
	} {
		t.Run(name, func(t *testing.T) {
			whole := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "once.a", UID: "uid", ResourceVersion: "7", Labels: map[string]string{api.ManagedLabel: managed}}}
			whole.Spec.HolderIdentity, whole.Spec.LeaseDurationSeconds = new(Unknown), new(int32(30))
			change(whole)
			kept, err := strip(whole.DeepCopy())
			require.NoError(t, err)
			lease := kept.(*coordinationv1.Lease)
			for fact, of := range map[string]func(*coordinationv1.Lease) any{
				"ours": func(l *coordinationv1.Lease) any { return ours(l) }, "recorded": func(l *coordinationv1.Lease) any { return recorded(l) },
				"stays": func(l *coordinationv1.Lease) any { return stays(l) }, "stamp": func(l *coordinationv1.Lease) any { return stampOf(l) },
				"holder": func(l *coordinationv1.Lease) any { return holder(l) }, "version": func(l *coordinationv1.Lease) any { return unchanged(l) },
				"duration": func(l *coordinationv1.Lease) any { return *l.Spec.LeaseDurationSeconds },
			} {
				assert.Equal(t, of(whole), of(lease), fact)
			}
		})
	}
}
