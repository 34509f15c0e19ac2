// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// Velero restores pods without their controllers, and a person who debugs a pod may copy all of its
// labels and annotations.
func TestLeftoverPolicyAdmitsRestoredPodsAndNoCopies(t *testing.T) {
	const stateful = appsv1.StatefulSetPodNameLabel
	for what, c := range map[string]struct {
		name, slots string
		labels      map[string]string
		admitted    bool
	}{
		"restored pod of a Deployment":                 {"web-5d9c7f6b4-x2v7k", "singleton.deployment.web", map[string]string{"velero.io/restore-name": "r"}, true},
		"restored pod of a StatefulSet":                {"db-0", "singleton.statefulset.db", map[string]string{"velero.io/restore-name": "r", stateful: "db-0"}, true},
		"several slots":                                {"web-5d9c7f6b4-x2v7k", "lock.a,singleton.deployment.web", map[string]string{"velero.io/restore-name": "r"}, true},
		"restored pod of a Job, which never adopts it": {"nightly-x2v7k", "singleton.job.nightly", map[string]string{"velero.io/restore-name": "r", "job-name": "nightly"}, false},
		"no restore":                                   {"web-5d9c7f6b4-x2v7k", "singleton.deployment.web", nil, false},
		"copy of a pod":                                {"debug", "singleton.deployment.web", nil, false},
		"copy of a restored pod":                       {"web-debug", "singleton.deployment.web", map[string]string{"velero.io/restore-name": "r"}, false},
		"copy of a restored pod of a StatefulSet":      {"db-1", "singleton.statefulset.db", map[string]string{"velero.io/restore-name": "r", stateful: "db-0"}, false},
		"restored bare pod, which needs no waiver":     {"bare", "singleton.pod.bare", map[string]string{"velero.io/restore-name": "r"}, true},
	} {
		args := api.DefaultRunArgs()
		args.Slots, args.Containers = strings.Split(c.slots, ","), []string{"app"}
		pod := gatedPod(c.name)
		pod.Annotations = map[string]string{api.SingletonAnnotation: "true", api.SlotsAnnotation: c.slots}
		maps.Copy(pod.Labels, c.labels)
		pod.Spec.InitContainers = []corev1.Container{
			{Name: "restore-wait", Image: "velero", Command: []string{"/velero-restore-helper"}},
			{Name: api.AgentContainer, Image: "agent", Args: args.Args(), RestartPolicy: new(corev1.ContainerRestartPolicyAlways)},
		}
		pod.Spec.Volumes = []corev1.Volume{{Name: api.Volume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		refused := refusals(t, request{by: &user.DefaultInfo{Name: "velero"}, resource: podResource, in: namespace(shop, true), object: pod})
		if c.admitted {
			assert.Empty(t, refused, what)
		} else {
			assert.Len(t, refused, 1, what)
			assert.Contains(t, strings.Join(refused, ""), "Leftover: ", what)
		}
	}
}
