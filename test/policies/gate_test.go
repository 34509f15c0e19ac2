// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// A refused pod of the cluster's network, or of the webhook, could stop the whole cluster. So in the
// namespaces of these pods a claim has no effect.
func TestClaimNeverBlocksPodsOfSystemNamespaces(t *testing.T) {
	for name, blocked := range map[string]bool{metav1.NamespaceSystem: false, "metaparticle-system": false, shop: true} {
		for annotation, value := range map[string]string{
			api.LockAnnotation: "a", api.AfterAnnotation: "once.schema=7", api.BarrierAnnotation: "warm=5", api.LocalAnnotation: "lock/a",
		} {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "bare", Annotations: map[string]string{annotation: value}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
			}
			refused := refusals(t, request{by: &user.DefaultInfo{Name: "person"}, resource: podResource, in: namespace(name, false), object: pod})
			assert.Equal(t, blocked, len(refused) > 0, "%s in %s: %v", annotation, name, refused)
		}
	}
}
