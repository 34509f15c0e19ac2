// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestOnlyPodsOfJobsHaveARun(t *testing.T) {
	const uid = "3f2c1a90-5b6d-4e7f-8a9b-0c1d2e3f4a5b"
	owned := func(apiVersion, kind, uid string, controls bool) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{
			{APIVersion: apiVersion, Kind: kind, Name: "job", UID: types.UID(uid), Controller: &controls},
		}}}
	}
	assert.Equal(t, uid, Run(owned("batch/v1", "Job", uid, true)))
	assert.Equal(t, uid, Run(owned("batch/v2", "Job", uid, true)))
	for name, pod := range map[string]*corev1.Pod{
		"no owner":                 {},
		"an owner not in control":  owned("batch/v1", "Job", uid, false),
		"another kind":             owned("apps/v1", "ReplicaSet", uid, true),
		"a Job of another group":   owned("jobs.example.com/v1", "Job", uid, true),
		"a UID that cannot be one": owned("batch/v1", "Job", "a,b", true),
	} {
		t.Run(name, func(t *testing.T) { assert.Empty(t, Run(pod)) })
	}
}
