// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestGoldenFilesMatchTheWebhooksAnswers reads each archive of testdata. An archive contains
// object.yaml (a pod or a workload), facts.yaml, and for an update old.yaml (the workload before
// the update). The archive also contains the expected answer: the patched object, and the warnings
// or the refusal. The webhook also gets the patched object, and must not change that object. With
// -update the test rewrites the expected answers.
func TestGoldenFilesMatchTheWebhooksAnswers(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			require.NoError(t, err)
			parts := map[string][]byte{}
			for _, f := range archive.Files {
				parts[f.Name] = f.Data
			}
			patched, said := golden(t, parts)
			if *update {
				rewrite(t, file, archive, patched, said)
				return
			}
			require.Equal(t, string(parts["patched.yaml"]), patched)
			require.Equal(t, string(parts["said.txt"]), said)
		})
	}
}

func TestEachClaimAnnotationIsInAGoldenFile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	var all strings.Builder
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		require.NoError(t, err)
		for _, f := range archive.Files {
			if f.Name == "object.yaml" {
				all.Write(f.Data)
			}
		}
	}
	for _, a := range api.Annotations {
		if a.Kind != nil {
			assert.Contains(t, all.String(), a.Key+":", "mutate/testdata needs a pod with this claim")
		}
	}
}

// golden returns the patched object, and the warnings or the refusal. For a refused object, the
// result "patched" is empty.
func golden(t *testing.T, parts map[string][]byte) (patched, said string) {
	t.Helper()
	var f mutatetest.Facts
	require.NoError(t, yaml.UnmarshalStrict(parts["facts.yaml"], &f))
	raw, err := yaml.YAMLToJSON(parts["object.yaml"])
	require.NoError(t, err)
	var old []byte
	if parts["old.yaml"] != nil {
		old, err = yaml.YAMLToJSON(parts["old.yaml"])
		require.NoError(t, err)
	}
	response := handle(t, f, raw, old)
	if !response.Allowed {
		return "", "denied: " + response.Result.Message + "\n"
	}
	for _, warning := range response.Warnings {
		said += "warning: " + warning + "\n"
	}
	result := mutatetest.Apply(t, raw, response.Patches)
	again := handle(t, f, result, old)
	require.True(t, again.Allowed, "second application: %v", again.Result)
	require.Empty(t, again.Patches, "second application")
	text, err := yaml.JSONToYAML(result)
	require.NoError(t, err)
	return string(text), said
}

func handle(t *testing.T, f mutatetest.Facts, raw, old []byte) admission.Response {
	t.Helper()
	var kind metav1.TypeMeta
	require.NoError(t, json.Unmarshal(raw, &kind))
	r := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Namespace: "shop",
		Kind:      metav1.GroupVersionKind{Kind: kind.Kind},
		Operation: admissionv1.Create,
		Object:    runtime.RawExtension{Raw: raw},
	}}
	if old != nil {
		r.Operation = admissionv1.Update
		r.OldObject.Raw = old
	}
	options := admit.Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f, Limits: f, CronJobs: f.ListCronJobs, Kubernetes: f.Minor}
	if kind.Kind == "Pod" {
		return admit.NewPodHandler(options).Handle(t.Context(), r)
	}
	if f.Images == nil {
		options.Images = nil // most workloads are about other things than their images
	}
	return admit.NewWorkloadHandler(options).Handle(t.Context(), r)
}

func rewrite(t *testing.T, file string, archive *txtar.Archive, patched, said string) {
	t.Helper()
	out := &txtar.Archive{Comment: archive.Comment}
	for _, f := range archive.Files {
		if f.Name != "patched.yaml" && f.Name != "said.txt" {
			out.Files = append(out.Files, f)
		}
	}
	for _, f := range []txtar.File{{Name: "patched.yaml", Data: []byte(patched)}, {Name: "said.txt", Data: []byte(said)}} {
		if len(f.Data) > 0 {
			out.Files = append(out.Files, f)
		}
	}
	require.NoError(t, os.WriteFile(file, txtar.Format(out), 0o644))
}
