// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// mistake is an edit of a workload, with the texts of the answers. The answers are warnings when a
// person applies the workload, and Events on its ReplicaSet. A text that ends with ": " is only the
// beginning of an answer.
type mistake struct {
	name        string
	annotations map[string]string
	edit        func(*corev1.PodTemplateSpec)
	said        []string
}

// mistakes returns mistakes that people often make.
func mistakes() []mistake {
	one := func(key, value string) map[string]string {
		return map[string]string{api.Prefix + key: value, api.SingletonAnnotation: "true"}
	}
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080), Host: "localhost"}}}
	hook := &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: "localhost", Port: intstr.FromInt32(80)}}
	container := func(edit func(*corev1.Container)) func(*corev1.PodTemplateSpec) {
		return func(t *corev1.PodTemplateSpec) { edit(&t.Spec.Containers[0]) }
	}
	const carry = "change the probe, or leave the container out by naming the others in metaparticle.io/containers"
	return []mistake{
		{"misspelt", map[string]string{api.Prefix + "singelton": "true"}, nil,
			[]string{"BadAnnotation: metaparticle.io/singelton is not known: did you mean metaparticle.io/singleton?"}},
		{"unheard of", one("colour", "red"), nil,
			[]string{"BadAnnotation: metaparticle.io/colour is not known: remove it"}},
		{"ambiguous", map[string]string{api.SingletonAnnotation: "yes"}, nil,
			[]string{`BadAnnotation: metaparticle.io/singleton is "yes": write "true" or "false"`}},
		{"no unit", one("lease-duration", "30"), nil,
			[]string{`BadAnnotation: metaparticle.io/lease-duration is "30": write 30s`}},
		{"too short", one("lease-duration", "5s"), nil,
			[]string{`BadAnnotation: metaparticle.io/lease-duration is "5s": lease duration 5s is not between 10s and 1h0m0s`}},
		{"no such way", one("on-loss", "panic"), nil,
			[]string{`BadAnnotation: metaparticle.io/on-loss is "panic": write "standby" or "restart"`}},
		{"no such readiness", one("readiness", "always"), nil,
			[]string{`BadAnnotation: metaparticle.io/readiness is "always": write "forward" or "holder"`}},
		{"a label as an annotation", one("injection", "enabled"), nil,
			[]string{"BadAnnotation: metaparticle.io/injection is a label of the namespace, not an annotation: " +
				"kubectl label namespace NAME metaparticle.io/injection=enabled"}},
		{"opted out and claiming", one("inject", "false"), nil,
			[]string{`BadAnnotation: metaparticle.io/inject is "false", but metaparticle.io/singleton claims a slot: remove one of the two`}},
		{"a modifier of nothing", map[string]string{api.LeaseDurationAnnotation: "30s"}, nil,
			[]string{`BadAnnotation: metaparticle.io/lease-duration has no effect without a claim: ` +
				"add " + asked() + ", or remove it"}},
		{"no such container", one("containers", "sidecar"), nil,
			[]string{`UnknownContainer: `}},
		{"a lock's name", map[string]string{api.LockAnnotation: "A b"}, nil,
			[]string{`BadAnnotation: metaparticle.io/lock is "A b": a lock's name is at most 248 lower-case letters, digits, dashes and dots, with a letter or digit at both ends`}},
		{"a probe of the node", nil, container(func(c *corev1.Container) { c.LivenessProbe = probe }),
			[]string{`Probes: container "app" has a livenessProbe at the host "localhost", which means the node itself: ` + carry}},
		{"a hook", nil, container(func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{PreStop: hook} }),
			[]string{`Hooks: container "app" has a preStop hook at the host "localhost", which means the node itself: change or remove the hook or the stop signal, or leave the container out by naming the others in metaparticle.io/containers`}},
		{"a low port of the node", nil, func(t *corev1.PodTemplateSpec) {
			t.Spec.HostNetwork = true
			t.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80}}
		}, []string{`HostNetwork: the pod sets hostNetwork and declares port 80: ` +
			`set metaparticle.io/readiness: holder, with which nothing is forwarded, or declare a port from 1024 on`}},
		{"shared processes", nil, func(t *corev1.PodTemplateSpec) { share := true; t.Spec.ShareProcessNamespace = &share },
			[]string{`SharedProcesses: the pod sets shareProcessNamespace: ` +
				`use metaparticle.io/gate: pod, which needs no such proof, or remove the setting or the claim`}},
		{"a setting and a field", one("lease-duration", "30"), func(t *corev1.PodTemplateSpec) { t.Spec.HostPID = true },
			[]string{`BadAnnotation: metaparticle.io/lease-duration is "30": write 30s`,
				`SharedProcesses: the pod sets hostPID: use metaparticle.io/gate: pod, which needs no such proof, or remove the setting or the claim`}},
		{"an image that nobody can read", nil, container(func(c *corev1.Container) { c.Image, c.Command = lab.RegistryInCluster+"/absent:1", nil }),
			[]string{`ImageUnreadable: `}},
		{"two at once", map[string]string{api.SingletonAnnotation: "true", api.OnLossAnnotation: "x", api.ReadinessAnnotation: "y"}, nil,
			[]string{`BadAnnotation: metaparticle.io/on-loss is "x": write "standby" or "restart"`,
				`BadAnnotation: metaparticle.io/readiness is "y": write "forward" or "holder"`}},
	}
}

// asked returns the advice to add one of the annotations that make a claim. The advice lists all of
// these annotations.
func asked() string {
	var ways []string
	for _, a := range api.Annotations {
		if a.Kind != nil {
			ways = append(ways, a.Kind.Ask)
		}
	}
	return strings.Join(ways, " or ")
}

func TestUserMistakesCauseWarningsAndEvents(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	for i, m := range mistakes() {
		t.Run(m.name, func(t *testing.T) {
			a := app.App{Name: fmt.Sprintf("mistake-%d", i), Replicas: 1, Annotations: maps.Clone(webhook.Claims), Edit: m.edit}
			if m.annotations != nil {
				a.Annotations = m.annotations
			}
			out := kubectl.Must(s, kubectl.Manifest(s, app.Deployment(s, a)), "apply", "-f", "-")
			var warnings []string
			for line := range strings.Lines(out) {
				if warning, ok := strings.CutPrefix(strings.TrimSpace(line), "Warning: "); ok {
					warnings = append(warnings, warning)
				}
			}
			require.Len(t, warnings, len(m.said), out)
			for i, said := range m.said {
				assert.True(t, warnings[i] == said || strings.HasSuffix(said, ": ") && strings.HasPrefix(warnings[i], said),
					"kubectl apply says %q, not %q", warnings[i], said)
			}
			for i := range m.said {
				told := strings.TrimPrefix(m.said[i], "BadAnnotation: ")
				// The ReplicaSet's first try may have failed for another reason, so the
				// test waits for the Event of a later try.
				s.Within(space.StartTimeout, func() bool { return strings.Contains(failedCreate(s, a), told) })
				assert.Contains(t, failedCreate(s, a), told, "what kubectl describe replicaset shows")
			}
			assert.Empty(t, s.Pods(a.Name), "no pod of it gets in")
			// Without the deletion, the ReplicaSet would try to create its pods again and
			// again, and slow the other tests down.
			kubectl.Must(s, "", "delete", "deployment", a.Name)
		})
	}
}

// failedCreate returns the messages of the Events in which a ReplicaSet reports that its
// pods are refused.
func failedCreate(s *space.Space, a app.App) string {
	var all []string
	for _, e := range s.Events() {
		if e.Reason == "FailedCreate" && strings.HasPrefix(e.InvolvedObject.Name, a.Name+"-") {
			all = append(all, e.Message)
		}
	}
	return strings.Join(all, "\n")
}
