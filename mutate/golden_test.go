// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
	operations "gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
)

var update = flag.Bool("update", false, "rewrite golden files")

const agentImage = "registry.example/agent:v1"

// facts is what a golden archive says besides its object.
type facts struct {
	// Group is the workload that the pod belongs to.
	Group *api.Workload `json:"group"`
	// Template are the containers of the template that the pod was made from.
	Template []string `json:"template"`
	// Images by name; an image with an error cannot be read.
	Images map[string]fakeImage `json:"images"`
	Limits []corev1.LimitRange  `json:"limits"`
	// Kubernetes is the cluster's minor version; negative if it is not known.
	Kubernetes int `json:"kubernetes"`
}

type fakeImage struct {
	Command
	Error string `json:"error"`
}

// TestGolden runs every archive of testdata: object.yaml (a pod or a workload),
// old.yaml (the workload before an update), facts.yaml; expected are the
// patched object, and what is said against it. Each is applied twice, and the
// second time nothing may change. -update rewrites what is expected.
func TestGolden(t *testing.T) {
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

// golden is the object as patched (empty if it is denied) and what is said.
func golden(t *testing.T, parts map[string][]byte) (patched, said string) {
	t.Helper()
	var f facts
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
	result := apply(t, raw, response.Patches)
	again := handle(t, f, result, old)
	require.True(t, again.Allowed, "second application: %v", again.Result)
	require.Empty(t, again.Patches, "second application")
	text, err := yaml.JSONToYAML(result)
	require.NoError(t, err)
	return string(text), said
}

func handle(t *testing.T, f facts, raw, old []byte) admission.Response {
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
	options := Options{AgentImage: agentImage, Images: f, Owners: f, Limits: f, Kubernetes: f.minor}
	if kind.Kind == "Pod" {
		return NewPodHandler(options).Handle(t.Context(), r)
	}
	return NewWorkloadHandler(options).Handle(t.Context(), r)
}

func (f facts) minor() int { return max(cmp.Or(f.Kubernetes, RestartsAll), 0) }

func (f facts) For(PullRights) Reader { return f }

func (f facts) Command(_ context.Context, image string) (Command, error) {
	found, ok := f.Images[image]
	if !ok {
		return Command{}, errString("image " + image + " is not in facts.yaml")
	}
	switch found.Error {
	case "":
		return found.Command, nil
	case "platforms":
		return Command{}, ErrPlatforms
	}
	return Command{}, errString(found.Error)
}

func (f facts) Workload(context.Context, string, *corev1.Pod) (api.Workload, *corev1.PodSpec, error) {
	if f.Group == nil {
		return api.Workload{}, nil, errString("not found")
	}
	if f.Template == nil {
		return *f.Group, nil, nil
	}
	template := new(corev1.PodSpec)
	for _, name := range f.Template {
		template.Containers = append(template.Containers, corev1.Container{Name: name})
	}
	return *f.Group, template, nil
}

func (f facts) LimitRanges(context.Context, string) ([]corev1.LimitRange, error) {
	return f.Limits, nil
}

type errString string

func (e errString) Error() string { return string(e) }

// apply patches as the API server does.
func apply(t testing.TB, raw []byte, ops []operations.Operation) []byte {
	t.Helper()
	if len(ops) == 0 {
		return raw
	}
	text, err := json.Marshal(ops)
	require.NoError(t, err)
	patch, err := jsonpatch.DecodePatch(text)
	require.NoError(t, err)
	result, err := patch.Apply(raw)
	require.NoError(t, err, string(text))
	return result
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
