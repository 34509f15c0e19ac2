// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

func TestGoMemoryLimitDerivesFromTheContainersLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	env := map[string]string{}
	limit := func() (int64, error) { return limitMemory(func(name string) string { return env[name] }) }

	got, err := limit()
	require.NoError(t, err)
	assert.Zero(t, got)
	assert.Equal(t, before, debug.SetMemoryLimit(-1), "without a limit nothing is changed")

	env[limitVariable] = "536870912"
	got, err = limit()
	require.NoError(t, err)
	assert.InDelta(t, 0.8*(512<<20), got, 100)
	assert.Equal(t, got, debug.SetMemoryLimit(-1))

	env["GOMEMLIMIT"] = "1GiB"
	got, err = limit()
	require.NoError(t, err)
	assert.Zero(t, got, "an administrator's own counts")

	delete(env, "GOMEMLIMIT")
	for _, wrong := range []string{"512Mi", "0", "-1"} {
		env[limitVariable] = wrong
		_, err = limit()
		require.ErrorIs(t, err, errNoBytes, wrong)
	}
}

// The webhook reads its memory limit from an environment variable. In the manifest this
// variable must refer to the container's limit. Then a change of the container's limit also
// changes the limit of Go's garbage collector.
func TestManifestTellsTheContainerItsMemoryLimit(t *testing.T) {
	text, err := os.ReadFile("../../manifests/webhook.yaml")
	require.NoError(t, err)
	var deployment appsv1.Deployment
	require.NoError(t, yaml.Unmarshal(text, &deployment))
	container := deployment.Spec.Template.Spec.Containers[0]
	assert.NotZero(t, container.Resources.Limits.Memory().Value())
	for _, variable := range container.Env {
		if variable.Name == limitVariable {
			require.NotNil(t, variable.ValueFrom)
			require.NotNil(t, variable.ValueFrom.ResourceFieldRef)
			assert.Equal(t, "limits.memory", variable.ValueFrom.ResourceFieldRef.Resource)
			return
		}
	}
	assert.Fail(t, "the container does not know its limit")
}
