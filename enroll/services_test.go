// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// forwarder returns a pod whose standbys forward the port 8080.
func forwarder(name string) *corev1.Pod {
	pod := gated(name, "till", "lock.a")
	args := api.DefaultRunArgs()
	args.Ports = api.Ports{{Number: 8080}}
	pod.Labels["app"], pod.Spec.InitContainers[0].Args = "web", args.Args()
	return pod
}

func serviceOf(port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: port}}},
	}
}

func TestServiceWhoseConnectionsStandbysRefuseGetsOneEvent(t *testing.T) {
	w := newWorld(t, serviceOf(3000), forwarder("web-1"))
	r := w.process()
	w.settle(r)
	assert.Empty(t, w.events, "a pod that is alone has no standby")
	w.create(forwarder("web-2"))
	w.settle(r)
	w.settle(r)
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "web ServiceNotForwarded: This Service sends connections to port 3000/TCP of pods such as web-")
}

func TestServiceOfAForwardedPortGetsNoEvent(t *testing.T) {
	w := newWorld(t, serviceOf(8080), forwarder("web-1"), forwarder("web-2"))
	w.settle(w.process())
	assert.Empty(t, w.events)
}

func TestCacheBoundsTheMemoryOfEachService(t *testing.T) {
	long := strings.Repeat("x", 1<<18)
	s := serviceOf(80)
	s.Annotations, s.Labels = map[string]string{"note": long}, map[string]string{"app": long}
	s.Spec.Selector["other"], s.Spec.ExternalName = long, long
	kept, err := strip(s)
	require.NoError(t, err)
	text, err := json.Marshal(kept)
	require.NoError(t, err)
	assert.Less(t, len(text), 1<<10)
	pod := forwarder("web-1")
	pod.Labels["note"] = long
	kept, err = strip(pod)
	require.NoError(t, err)
	assert.NotContains(t, kept.(*corev1.Pod).Labels, "note")
	assert.Equal(t, "web", kept.(*corev1.Pod).Labels["app"])
}
