// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// A pod of a workload is refused for exactly the reasons of which the workload has warned. The
// random workloads have neither mistakes in their annotations nor marks.
func TestWorkloadWarnsOfEachRefusalOfItsPods(t *testing.T) {
	refused, admitted := 0, 0
	for seed := range uint64(1500) {
		r := randomPod{rand.New(rand.NewPCG(seed, 7))}
		workload, pod, f := r.workload(t)
		answer := handle(t, f, pod, nil)
		var reasons []string
		if !answer.Allowed {
			reasons = reasonsIn(strings.Split(answer.Result.Message, "; "))
		}
		if slices.Contains(reasons, string(reason.BadAnnotation)) {
			continue
		}
		warned := reasonsIn(handle(t, f, workload, nil).Warnings)
		require.Equal(t, reasons, warned, "seed %d: %s", seed, workload)
		if len(reasons) > 0 {
			refused++
		} else {
			admitted++
		}
	}
	assert.Greater(t, refused, 100, "too few refused pods to mean anything")
	assert.Greater(t, admitted, 100, "too few admitted pods to mean anything")
}

// workload returns a random workload, a pod of its template, and the facts about both. Each image
// has a command, because the webhook reads no image for a workload.
func (r randomPod) workload(t *testing.T) (workload, pod []byte, f mutatetest.Facts) {
	t.Helper()
	made := r.pod()
	metadata, spec := made["metadata"].(map[string]any), made["spec"].(map[string]any)
	annotations := metadata["annotations"].(map[string]any)
	delete(annotations, api.SlotsAnnotation)
	for _, a := range [][2]string{
		{api.OnLossAnnotation, "restart"}, {api.WaitAtMostAnnotation, "30s"}, {api.StartLockAnnotation, "warm"}, {api.BarrierAnnotation, "warm=2"},
		{api.YieldAfterAnnotation, "60s"}, {api.FailsafeAnnotation, "10m,alone"}, {api.FailsafeAnnotation, "10m"}, {api.PreferAnnotation, "topology.kubernetes.io/zone=a"},
	} {
		if r.chance(10) {
			annotations[a[0]] = a[1]
		}
	}
	of := api.Workload{Group: "apps", Kind: r.one("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet").(string), Name: "d"}
	f = mutatetest.Facts{Group: &of, Revision: "5b7e0a11-1/1/6d4b", Images: map[string]mutatetest.Image{}}
	specs := map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": annotations}, "spec": spec}}
	delete(spec, "restartPolicy")
	switch {
	case r.chance(20):
		of.Group, of.Kind = "batch", "Job"
		spec["restartPolicy"] = r.one("Never", "OnFailure")
		specs["parallelism"], specs["completions"] = 2, 2
		f.Run = feature.Run{UID: "1-a", AtOnce: 2, Completions: new(int32(2))}
	case of.Kind == "ReplicaSet":
		f.Revision = ""
	}
	for _, name := range []string{"a:1", "b:1", "c:1"} {
		f.Images[name] = mutatetest.Image{Command: image.Command{Entrypoint: []string{"run"}}}
	}
	for _, c := range spec["containers"].([]any) {
		f.Template = append(f.Template, c.(map[string]any)["name"].(string))
	}
	owner := map[string]any{"apiVersion": of.Group + "/v1", "kind": of.Kind, "name": "d", "uid": "1-a", "controller": true}
	metadata = map[string]any{"generateName": "d-", "annotations": annotations, "ownerReferences": []any{owner}}
	pod, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
	require.NoError(t, err)
	workload, err = json.Marshal(map[string]any{"apiVersion": of.Group + "/v1", "kind": of.Kind, "metadata": map[string]any{"name": "d"}, "spec": specs})
	require.NoError(t, err)
	return workload, pod, f
}

// reasonsIn returns the reasons that begin the lines, sorted and without duplicates. The result has
// neither reasons that only warn, nor the reason of a missing command.
func reasonsIn(lines []string) []string {
	var reasons []string
	for _, e := range reason.All {
		begins := func(line string) bool { return strings.HasPrefix(line, string(e.Reason)+": ") }
		if !e.WarnOnly && e.Reason != reason.NoCommand && slices.ContainsFunc(lines, begins) {
			reasons = append(reasons, string(e.Reason))
		}
	}
	slices.Sort(reasons)
	return reasons
}
