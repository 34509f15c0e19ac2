// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

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
	many := make([]string, 4*maxSlotsPerRole)
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
	slots := map[string]memory{}
	for i := range maxSlotsPerRole {
		name := "lock." + strconv.Itoa(i) + "."
		slots[name+strings.Repeat("a", 253-len(name))] = memory{Seconds: 30}
	}
	meta := metav1.ObjectMeta{Name: "r", Labels: map[string]string{api.ManagedLabel: managed}, OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Name: "a"}}}
	meta.Annotations = map[string]string{leasesAnnotation: strings.Repeat("x", 200<<10)}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: rules(slots)}
	require.Greater(t, len(role.Rules[0].ResourceNames), maxSlotsPerRole)
	binding := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: roleRef(strings.Repeat("r", 253)), Subjects: []rbacv1.Subject{subject(shop, strings.Repeat("a", 253))}}
	for _, whole := range []client.Object{role, binding} {
		kept, err := strip(whole.DeepCopyObject())
		require.NoError(t, err)
		assert.Equal(t, whole, kept)
	}
}
