// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// unnamed returns a pod of the given workload and revision. The pod's once claim has no name.
func unnamed(kind, group, uid, hash string) mutate.Subject {
	return mutate.Subject{
		Namespace: "shop",
		Origin: feature.Origin{
			Workload: api.Workload{Group: group, Kind: kind, Name: "shop"},
			Revision: api.Revision{Workload: uid, Number: 1, Hash: hash},
		},
		Pod: &corev1.Pod{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
			ObjectMeta: metav1.ObjectMeta{Name: "shop-1", Annotations: map[string]string{api.OnceAnnotation: "true", api.ContainersAnnotation: "migrate"}},
			Spec: corev1.PodSpec{
				InitContainers: []corev1.Container{{Name: "migrate", Image: "app:1", Command: []string{"up"}}},
				Containers:     []corev1.Container{{Name: "app", Image: "app:1"}},
			},
		},
	}
}

// ownedBy gives the pod a controller with the given API version, kind and UID.
func ownedBy(s mutate.Subject, version, kind, uid string) mutate.Subject {
	s.Pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: "shop", UID: types.UID(uid), Controller: new(true)}}
	return s
}

// keyOf gates the pod, and returns the key of its once claim, or the webhook's error.
func keyOf(t *testing.T, s mutate.Subject) (string, error) {
	t.Helper()
	var err error
	s.Raw, err = json.Marshal(s.Pod)
	require.NoError(t, err)
	ops, _, err := mutate.Inject(t.Context(), s, mutatetest.AgentImage, mutatetest.Facts{})
	if err != nil {
		return "", err
	}
	var gated corev1.Pod
	require.NoError(t, json.Unmarshal(mutatetest.Apply(t, s.Raw, ops), &gated))
	for _, c := range gated.Spec.InitContainers {
		if c.Name == api.AgentContainer {
			return api.RecallRunArgs(c.Args).OnceKey, nil
		}
	}
	require.Fail(t, "the pod has no agent")
	return "", nil
}

func TestKeyOfUnnamedOnceClaimComesFromController(t *testing.T) {
	const uid = "5b7e0a11-37a1-4c7d-9f66-0e9b3c7e1a2b"
	preview := unnamed("Deployment", "apps", "", "")
	preview.Preview = true
	for name, c := range map[string]struct {
		subject mutate.Subject
		want    string
	}{
		"deployment":                 {unnamed("Deployment", "apps", uid, "6d4b75cb6d"), "6d4b75cb6d.5b7e0a11"},
		"next revision":              {unnamed("Deployment", "apps", uid, "77f8c5b49"), "77f8c5b49.5b7e0a11"},
		"deleted and created again":  {unnamed("Deployment", "apps", "c0ffee00-1", "6d4b75cb6d"), "6d4b75cb6d.c0ffee00"},
		"stateful set":               {unnamed("StatefulSet", "apps", uid, "shop-6d4b75cb6d"), "6d4b75cb6d.5b7e0a11"},
		"job":                        {ownedBy(unnamed("Job", "batch", "", ""), "batch/v1", "Job", uid), uid},
		"job of a cron job":          {ownedBy(unnamed("CronJob", "batch", "", ""), "batch/v1", "Job", uid), uid},
		"manifest without a cluster": {preview, "REVISION"},
	} {
		key, err := keyOf(t, c.subject)
		require.NoError(t, err, name)
		assert.Equal(t, c.want, key, name)
	}
}

func TestUnnamedOnceClaimWithoutARevisionIsRefused(t *testing.T) {
	for name, s := range map[string]mutate.Subject{
		"hash that is no key":    unnamed("Deployment", "apps", "5b7e", "-"),
		"no controller":          unnamed("Pod", "", "", ""),
		"bare ReplicaSet":        ownedBy(unnamed("ReplicaSet", "apps", "", ""), "apps/v1", "ReplicaSet", "1"),
		"another API's Job":      ownedBy(unnamed("Job", "example.com", "", ""), "example.com/v1", "Job", "1"),
		"text in place of a UID": ownedBy(unnamed("Job", "batch", "", ""), "batch/v1", "Job", "$(X)"),
	} {
		_, err := keyOf(t, s)
		var refusals reason.Refusals
		require.ErrorAs(t, err, &refusals, name)
		assert.Equal(t, []reason.Reason{reason.NoRevision}, reason.Of(err), name)
	}
}
