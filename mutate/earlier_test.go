// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate_test

import (
	"path"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// During an upgrade the webhook has replicas of two versions, and the API server may call a replica
// of either version for a pod. The present version admits each pod that version 0.1.0 has
// gated, and patches neither the new pod nor an update of the pod. Only the annotation for the cluster
// autoscaler is added to a new pod, because version 0.1.0 did not have it.
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
			assert.Equal(t, "/metadata/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict-local-volumes", o.Path, pair)
		}
		updated := handle(t, f, raw, raw)
		assert.True(t, updated.Allowed, "%s: %v", pair, updated.Result)
		assert.Empty(t, updated.Patches, pair)
		pods++
	}
	assert.Greater(t, pods, 40)
}
