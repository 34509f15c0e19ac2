// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/enroll/step"
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

// A user can create hundreds of such Leases. Enroll must not have all of them in memory at once.
func TestLiveShardsTakeLittleMemory(t *testing.T) {
	huge := heavy(api.ShardLease(web, 0))
	huge.ResourceVersion = ""
	live, err := liveShards(t.Context(), store{reader: fake.NewClientBuilder().WithObjects(huge).Build()}, shop)
	require.NoError(t, err)
	require.Len(t, live, 1)
	text, err := json.Marshal(live)
	require.NoError(t, err)
	assert.Less(t, len(text), 4<<10)
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
		"hinted":             func(l *coordinationv1.Lease) { l.Annotations = map[string]string{api.AloneAnnotation: api.AloneTrue} },
		"of another program": func(l *coordinationv1.Lease) { l.Labels = map[string]string{api.ManagedLabel: "helm"} },
	} {
		t.Run(name, func(t *testing.T) {
			whole := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "once.a", UID: "uid", ResourceVersion: "7", Labels: map[string]string{api.ManagedLabel: managed}}}
			whole.Spec.HolderIdentity, whole.Spec.LeaseDurationSeconds = new(step.Unknown), new(int32(30))
			change(whole)
			kept, err := strip(whole.DeepCopy())
			require.NoError(t, err)
			lease := kept.(*coordinationv1.Lease)
			for fact, of := range map[string]func(*coordinationv1.Lease) any{
				"ours": func(l *coordinationv1.Lease) any { return ours(l) }, "fate": fate, "stamp": func(l *coordinationv1.Lease) any { return stampOf(l) },
				"hint":   func(l *coordinationv1.Lease) any { return seenLease(l).Annotations[api.AloneAnnotation] },
				"holder": func(l *coordinationv1.Lease) any { return holder(l) }, "version": func(l *coordinationv1.Lease) any { return unchanged(l) },
				"duration": func(l *coordinationv1.Lease) any { return *l.Spec.LeaseDurationSeconds },
			} {
				assert.Equal(t, of(whole), of(lease), fact)
			}
		})
	}
}

// fate returns what is unclaimed of a Lease that a Role names, and no pod claims.
func fate(l *coordinationv1.Lease) any {
	roles := &step.Roles{}
	roles.Add(&step.Role{Name: "r", Memories: map[string]step.Memory{l.Name: {}}})
	f := step.Facts{Leases: map[string]*step.Lease{l.Name: seenLease(l)}, Roles: roles}
	return slices.Collect(maps.Keys(f.Unclaimed()))
}

// hostile returns objects of 1.4 MB, which the API server admits. Each user who may create workloads
// in any namespace can create such objects, without an opt-in.
func hostile() map[string]client.Object {
	values := slices.Repeat([]string{""}, 700_000)
	selector := func() *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: metav1.LabelSelectorOpIn, Values: values}}}
	}
	annotated := metav1.ObjectMeta{Name: "a", Annotations: map[string]string{api.SingletonAnnotation: "true"}}
	notes := metav1.ObjectMeta{Name: "a", Annotations: map[string]string{}, Labels: map[string]string{api.ManagedLabel: managed}}
	for i := range 20_000 {
		notes.Annotations[api.Prefix+strconv.Itoa(i)] = ""
		notes.Labels[strconv.Itoa(i)] = ""
		notes.Finalizers = append(notes.Finalizers, "a/b")
		notes.OwnerReferences = append(notes.OwnerReferences, metav1.OwnerReference{Name: "a"})
	}
	texts := metav1.ObjectMeta{Name: "a", Annotations: map[string]string{api.LockAnnotation: strings.Repeat("x", 256<<10)}}
	return map[string]client.Object{
		"Deployment without annotation": &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Selector: selector()}},
		"Deployment":                    &appsv1.Deployment{ObjectMeta: annotated, Spec: appsv1.DeploymentSpec{Selector: selector()}},
		"StatefulSet":                   &appsv1.StatefulSet{ObjectMeta: annotated, Spec: appsv1.StatefulSetSpec{Selector: selector()}},
		"DaemonSet":                     &appsv1.DaemonSet{ObjectMeta: annotated, Spec: appsv1.DaemonSetSpec{Selector: selector()}},
		"many notes":                    &appsv1.Deployment{ObjectMeta: notes, Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{ObjectMeta: notes}}},
		"long notes":                    &batchv1.CronJob{ObjectMeta: texts},
		"pod":                           &corev1.Pod{ObjectMeta: notes},
		"Role":                          &rbacv1.Role{ObjectMeta: notes, Rules: []rbacv1.PolicyRule{{ResourceNames: values}}},
		"RoleBinding":                   &rbacv1.RoleBinding{ObjectMeta: notes, Subjects: make([]rbacv1.Subject, 50_000)},
	}
}

func TestEnrollsCacheBoundsTheMemoryOfEachObject(t *testing.T) {
	for name, object := range hostile() {
		t.Run(name, func(t *testing.T) {
			kept, err := strip(object)
			require.NoError(t, err)
			text, err := json.Marshal(kept)
			require.NoError(t, err)
			assert.Less(t, len(text), 40<<10)
		})
	}
}

// A cut annotation stays invalid, and unknown annotations stay unknown. So enroll makes no Lease for a
// workload that the webhook refuses.
func TestStrippedAnnotationsClaimNoMoreThanBefore(t *testing.T) {
	unknown := map[string]string{api.SingletonAnnotation: "true"}
	for i := range 500 {
		unknown[api.Prefix+strconv.Itoa(i)] = ""
	}
	var many []string
	for i := range 10_000 {
		many = append(many, strconv.Itoa(i))
	}
	for name, annotations := range map[string]map[string]string{
		"unknown": unknown,
		"long":    {api.LockAnnotation: strings.Join(many, ",")},
	} {
		assert.False(t, claiming(annotations), name)
		assert.False(t, claiming(onlyOurs(annotations)), name)
	}
	locks := map[string]string{api.LockAnnotation: strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 200)+",", 32), ",")}
	assert.Equal(t, locks, onlyOurs(locks))
}

// The Role of an account with all its slots stays whole, because enroll writes this Role back.
func TestStrippedRoleKeepsAllThatEnrollHasWritten(t *testing.T) {
	slots := map[string]step.Memory{}
	for i := range step.MaxSlotsPerRole {
		slots["lock."+strconv.Itoa(i)] = step.Memory{Seconds: 30}
	}
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "r", Labels: map[string]string{api.ManagedLabel: managed, "team": "a"}, Annotations: map[string]string{"note": "a"}},
		Rules:      rules(slots),
	}
	kept, err := strip(role.DeepCopy())
	require.NoError(t, err)
	assert.Equal(t, role, kept)
}

// megabytes is a text that nearly fills an object of the API server.
var megabytes = strings.Repeat("x", 1_400_000)

// longOwners returns references to controllers, each with one long text. The API server admits all of
// them.
func longOwners(t *testing.T) map[string]metav1.OwnerReference {
	all := map[string]metav1.OwnerReference{
		"group":   {APIVersion: megabytes + "/v1", Kind: "K", Name: "n", UID: "u", Controller: new(true)},
		"version": {APIVersion: "a/" + megabytes, Kind: "K", Name: "n", UID: "u", Controller: new(true)},
		"kind":    {APIVersion: "a/v1", Kind: megabytes, Name: "n", UID: "u", Controller: new(true)},
		"name":    {APIVersion: "a/v1", Kind: "K", Name: megabytes, UID: "u", Controller: new(true)},
		"UID":     {APIVersion: "a/v1", Kind: "K", Name: "n", UID: types.UID(megabytes), Controller: new(true)},
	}
	for text, owner := range all {
		require.Empty(t, validation.ValidateOwnerReferences([]metav1.OwnerReference{owner}, field.NewPath("metadata")), text)
	}
	return all
}

// bytesInCache returns the bytes that enroll's cache keeps of an object.
func bytesInCache(t *testing.T, object client.Object) int {
	kept, err := strip(object.DeepCopyObject())
	require.NoError(t, err)
	text, err := json.Marshal(kept)
	require.NoError(t, err)
	return len(text)
}

// Each user who may create workloads in any namespace can create such objects, without an opt-in.
func TestEnrollsCacheBoundsTheTextsOfOwnerReferences(t *testing.T) {
	for text, owner := range longOwners(t) {
		meta := metav1.ObjectMeta{Name: "a", OwnerReferences: []metav1.OwnerReference{owner}}
		gated, role := meta, meta
		gated.Labels, role.Labels = map[string]string{api.GatedLabel: api.Gated}, map[string]string{api.ManagedLabel: managed}
		for kind, object := range map[string]client.Object{
			"Deployment": &appsv1.Deployment{ObjectMeta: meta}, "StatefulSet": &appsv1.StatefulSet{ObjectMeta: meta},
			"DaemonSet": &appsv1.DaemonSet{ObjectMeta: meta}, "CronJob": &batchv1.CronJob{ObjectMeta: meta}, "Pod": &corev1.Pod{ObjectMeta: gated},
			"Role": &rbacv1.Role{ObjectMeta: role}, "RoleBinding": &rbacv1.RoleBinding{ObjectMeta: role},
		} {
			assert.Less(t, bytesInCache(t, object), 4<<10, "%s of %s", text, kind)
		}
	}
}

// Enroll makes no Lease for a workload that has a controller, and tells a pod's Job by the reference.
func TestStrippedObjectStaysControlledByItsController(t *testing.T) {
	for text, owner := range longOwners(t) {
		kept, err := strip(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "a", OwnerReferences: []metav1.OwnerReference{owner}}})
		require.NoError(t, err)
		assert.NotNil(t, metav1.GetControllerOf(kept.(client.Object)), text)
	}
	job := metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: "warm", UID: "0a1b2c3d-1111-2222-3333-444455556666", Controller: new(true)}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", OwnerReferences: []metav1.OwnerReference{{Kind: "Other"}, job}}}
	kept, err := strip(pod)
	require.NoError(t, err)
	assert.Equal(t, []metav1.OwnerReference{job}, kept.(*corev1.Pod).OwnerReferences)
	assert.Equal(t, string(job.UID), podspec.Run(kept.(*corev1.Pod)))
	free, err := strip(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "a", OwnerReferences: []metav1.OwnerReference{{Kind: megabytes}}}})
	require.NoError(t, err)
	assert.Empty(t, free.(*appsv1.Deployment).OwnerReferences)
}

func TestEnrollsCacheBoundsTheTextsOfRoles(t *testing.T) {
	meta := metav1.ObjectMeta{Name: "a", Labels: map[string]string{api.ManagedLabel: managed}}
	ruled := func(rule rbacv1.PolicyRule) client.Object {
		return &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}}
	}
	bound := func(s rbacv1.Subject) client.Object {
		return &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: []rbacv1.Subject{s}}
	}
	refers := func(r rbacv1.RoleRef) client.Object { return &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: r} }
	require.Empty(t, content.IsPathSegmentName(megabytes), "the API server admits the name")
	prefixed, noted, named := meta, meta, meta
	named.Name = megabytes
	prefixed.GenerateName, noted.Annotations = megabytes, map[string]string{"note": strings.Repeat("x", 256<<10)}
	many := make([]string, 4*step.MaxSlotsPerRole)
	for i := range many {
		many[i] = strings.Repeat("x", 250) + strconv.Itoa(i)
	}
	long := []string{megabytes}
	for name, object := range map[string]client.Object{
		"resource names":    ruled(rbacv1.PolicyRule{ResourceNames: long}),
		"many long names":   ruled(rbacv1.PolicyRule{ResourceNames: slices.Clip(many)}),
		"resources":         ruled(rbacv1.PolicyRule{Resources: long}),
		"verbs":             ruled(rbacv1.PolicyRule{Verbs: long}),
		"API groups":        ruled(rbacv1.PolicyRule{APIGroups: long}),
		"URLs":              ruled(rbacv1.PolicyRule{NonResourceURLs: long}),
		"kind of a subject": bound(rbacv1.Subject{Kind: megabytes}),
		"group":             bound(rbacv1.Subject{APIGroup: megabytes}),
		"name of a subject": bound(rbacv1.Subject{Name: megabytes}),
		"namespace":         bound(rbacv1.Subject{Namespace: megabytes}),
		"group of the Role": refers(rbacv1.RoleRef{APIGroup: megabytes}),
		"kind of the Role":  refers(rbacv1.RoleRef{Kind: megabytes}),
		"name of the Role":  refers(rbacv1.RoleRef{Name: megabytes}),
		"prefix":            &rbacv1.Role{ObjectMeta: prefixed},
		"name":              &rbacv1.Role{ObjectMeta: named},
		"name of a binding": &rbacv1.RoleBinding{ObjectMeta: named},
		"annotation":        &rbacv1.RoleBinding{ObjectMeta: noted},
	} {
		assert.Less(t, bytesInCache(t, object), 4<<10, name)
	}
}

// Enroll writes Roles and RoleBindings of the cache back, so ordinary ones stay whole.
func TestStrippedRoleKeepsTheLongestNamesOfEnroll(t *testing.T) {
	slots := map[string]step.Memory{}
	for i := range step.MaxSlotsPerRole {
		name := "lock." + strconv.Itoa(i) + "."
		slots[name+strings.Repeat("a", 253-len(name))] = step.Memory{Seconds: 30}
	}
	meta := metav1.ObjectMeta{Name: "r", Labels: map[string]string{api.ManagedLabel: managed}, OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Name: "a"}}}
	meta.Annotations = map[string]string{leasesAnnotation: strings.Repeat("x", 200<<10)}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: rules(slots)}
	require.Greater(t, len(role.Rules[0].ResourceNames), step.MaxSlotsPerRole)
	binding := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: roleRef(strings.Repeat("r", 253)), Subjects: []rbacv1.Subject{subject(shop, strings.Repeat("a", 253))}}
	for _, whole := range []client.Object{role, binding} {
		kept, err := strip(whole.DeepCopyObject())
		require.NoError(t, err)
		assert.Equal(t, whole, kept)
	}
}
