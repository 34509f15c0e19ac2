// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate_test

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// During an upgrade the webhook has replicas of two versions, and the API server may call a replica
// of either version for a pod. The present version admits each pod that version 0.1.0 has
// gated, and patches neither the new pod nor an update of the pod. Version 0.1.0 did not have the annotation
// for the cluster autoscaler, and forwarded neither UDP nor ports that only a probe names. So a new pod gets
// the annotation, and these ports.
func TestUpgradedWebhookLeavesAlreadyGatedPodsUnchanged(t *testing.T) {
	archive, err := txtar.ParseFile("../tools/earlier/testdata/v0.1.0/pods.txtar")
	require.NoError(t, err)
	parts := map[string][]byte{}
	for _, f := range archive.Files {
		parts[f.Name] = f.Data
	}
	pods := 0
	for name, text := range parts {
		pair := path.Dir(name)
		if !strings.HasSuffix(name, "/patched.yaml") || pair == "marks-kept" { // a person, and not the webhook, gated this pod
			continue
		}
		var f mutatetest.Facts
		require.NoError(t, yaml.UnmarshalStrict(parts[pair+"/facts.yaml"], &f), pair)
		raw, err := yaml.YAMLToJSON(text)
		require.NoError(t, err)
		created := handle(t, f, raw, nil)
		assert.True(t, created.Allowed, "%s: %v", pair, created.Result)
		for _, o := range created.Patches {
			value := fmt.Sprintf("%s", o.Value)
			switch o.Path {
			case "/metadata/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict-local-volumes",
				"/metadata/annotations/backup.velero.io~1backup-volumes-excludes":
			case "/spec/initContainers/0/args", "/spec/initContainers/2/args":
				var pod corev1.Pod
				var now []string
				require.NoError(t, yaml.Unmarshal(text, &pod), pair)
				require.NoError(t, yaml.Unmarshal([]byte(value), &now), pair)
				i := int(o.Path[len("/spec/initContainers/")] - '0')
				assert.Equal(t, withoutPorts(pod.Spec.InitContainers[i].Args), withoutPorts(now), pair)
			case "/spec/securityContext": // lets the agent listen on these ports
				assert.Contains(t, value, "net.ipv4.ip_unprivileged_port_start", pair)
			default:
				assert.Fail(t, o.Path, pair)
			}
		}
		updated := handle(t, f, raw, raw)
		assert.True(t, updated.Allowed, "%s: %v", pair, updated.Result)
		assert.Empty(t, updated.Patches, pair)
		pods++
	}
	assert.Greater(t, pods, 40)
}

func withoutPorts(args []string) []string {
	return slices.DeleteFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "-ports=") })
}
