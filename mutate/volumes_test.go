// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"cmp"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func TestOnlyPodsThatMayBeApartCauseAWarningAboutTheirClaim(t *testing.T) {
	const (
		warns   = "may get different nodes. If the claim is ReadWriteOnce"
		own     = "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: %s, labelSelector: {matchLabels: {app: %s}}%s}]}}"
		host    = "kubernetes.io/hostname"
		volume  = "persistentVolumeClaim: {claimName: data}"
		claimed = `metaparticle.io/singleton: "true"`
	)
	modes := func(all ...corev1.PersistentVolumeAccessMode) map[string][]corev1.PersistentVolumeAccessMode {
		return map[string][]corev1.PersistentVolumeAccessMode{"data": all}
	}
	pinned := fmt.Sprintf(own, host, "a", "")
	for name, test := range map[string]struct {
		kind, claim, replicas, volume, pod string
		modes                              map[string][]corev1.PersistentVolumeAccessMode
		want                               string
	}{
		"two replicas":             {want: warns},
		"a ReplicaSet":             {kind: "ReplicaSet", want: warns},
		"a StatefulSet":            {kind: "StatefulSet", want: warns},
		"a DaemonSet":              {kind: "DaemonSet", replicas: "0", want: warns},
		"one replica":              {replicas: "1"},
		"a Job":                    {kind: "Job"},
		"no claim":                 {volume: "emptyDir: {}"},
		"a read-only mount":        {volume: "persistentVolumeClaim: {claimName: data, readOnly: true}"},
		"only a start lock":        {claim: "metaparticle.io/start-lock: warm"},
		"a semaphore":              {claim: "metaparticle.io/semaphore: pool=2", replicas: "3", want: warns},
		"together":                 {pod: pinned},
		"together in a zone":       {pod: fmt.Sprintf(own, "topology.kubernetes.io/zone", "a", ""), want: warns},
		"beside another app":       {pod: fmt.Sprintf(own, host, "b", ""), want: warns},
		"beside another namespace": {pod: fmt.Sprintf(own, host, "a", ", namespaces: [other]"), want: warns},
		"together by revision":     {pod: fmt.Sprintf(own, host, "a", ", matchLabelKeys: [pod-template-hash]"), want: warns},
		"a node by name":           {pod: "nodeName: node-1"},
		"a node by label":          {pod: "nodeSelector: {kubernetes.io/hostname: node-1}"},
		"a node by affinity": {pod: "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: " +
			"[{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-1]}]}]}}}"},
		"two nodes by affinity": {pod: "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: " +
			"[{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-1, node-2]}]}]}}}", want: warns},
		"known to be ReadWriteOnce":             {modes: modes(corev1.ReadWriteOnce), want: `"data" is ReadWriteOnce, and`},
		"known to be ReadWriteOnce, together":   {modes: modes(corev1.ReadWriteOnce), pod: pinned},
		"known to be ReadWriteMany":             {modes: modes(corev1.ReadWriteOnce, corev1.ReadWriteMany)},
		"known to be ReadWriteOncePod":          {modes: modes(corev1.ReadWriteOncePod), pod: pinned, want: "only one of the pods can run"},
		"another claim known to be shared":      {modes: map[string][]corev1.PersistentVolumeAccessMode{"other": {corev1.ReadWriteMany}}, want: warns},
		"the program asks for its slots itself": {claim: "metaparticle.io/api: lock/a"},
	} {
		raw, err := yaml.YAMLToJSON(fmt.Appendf(nil, `
metadata: {name: d, annotations: {%s}}
spec:
  replicas: %s
  template:
    metadata: {labels: {app: a}}
    spec:
      %s
      containers: [{name: app, image: "a:1", command: [app]}]
      volumes: [{name: v, %s}]
`, cmp.Or(test.claim, claimed), cmp.Or(test.replicas, "2"), test.pod, cmp.Or(test.volume, volume)))
		require.NoError(t, err, name)
		_, warnings, err := Carry(t.Context(), Workload{Kind: cmp.Or(test.kind, "Deployment"), Raw: raw, Kubernetes: 37, AccessModes: test.modes})
		require.NoError(t, err, name)
		said := ""
		for _, w := range warnings {
			if w.Reason == "VolumeOnOneNode" {
				said += w.Error()
			}
		}
		assert.Equal(t, test.want != "", said != "", "%s: %s", name, said)
		assert.Contains(t, said, test.want, name)
	}
}
