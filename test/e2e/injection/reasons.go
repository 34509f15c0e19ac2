// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// The refusal, the warning, the Event on the owner and the metric contain the same
// reason.
func TestWarningAndMetricAndEventRepeatRefusalReason(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	const reason = "SharedProcesses"
	a := app.Singleton("named")
	share := true
	a.Edit = func(template *corev1.PodTemplateSpec) { template.Spec.ShareProcessNamespace = &share }
	pod := app.Bare(s, "named", webhook.Claims)
	pod.Spec.ShareProcessNamespace = &share
	webhook.Refused(s, pod, reason+": ")
	assert.Contains(t, kubectl.Must(s, kubectl.Manifest(s, app.Deployment(s, a)), "apply", "-f", "-"), "Warning: "+reason+": ")
	s.Await(space.StartTimeout, "an Event on the Deployment", func() bool {
		event := s.Event("Deployment", a.Name, reason)
		return event != nil && strings.Contains(event.Message, reason+": ")
	})
	counted := false
	for _, p := range webhook.Pods(t) {
		text, err := cluster.Client.CoreV1().Pods(webhook.Namespace).ProxyGet("http", p.Name, "8080", "/metrics", nil).DoRaw(t.Context())
		require.NoError(t, err)
		counted = counted || strings.Contains(string(text), `metaparticle_admissions_total{reason="`+reason+`",resource="pods",result="denied"}`)
	}
	assert.True(t, counted, "in the metric")
}
