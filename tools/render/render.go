// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package render builds the manifests with the images and the components of an installation.
package render

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/resid"
	"sigs.k8s.io/yaml"
)

// Settings choose the images and the components.
type Settings struct {
	// Manifests is the directory of the manifests.
	Manifests string
	// WebhookImage and AgentImage name images as nodes pull them. An empty text keeps the name in
	// the manifests.
	WebhookImage string
	AgentImage   string
	// Components are directories below manifests/components.
	Components []string
	// PlainHTTP are registries that the webhook reads without TLS.
	PlainHTTP []string
	// Origins annotates each object with the file that contains it.
	Origins bool
}

// Build builds the manifests with the settings, as "kubectl apply -k" builds an equivalent
// overlay.
func Build(s Settings) ([]*resource.Resource, error) {
	directory, err := overlay(s)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(directory) }()
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone
	built, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		return nil, fmt.Errorf("build manifests: %w", err)
	}
	return built.Resources(), nil
}

// Objects returns the built manifests as objects.
func Objects(s Settings) ([]*unstructured.Unstructured, error) {
	built, err := Build(s)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, resource := range built {
		text, err := resource.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", resource.CurId(), err)
		}
		object := new(unstructured.Unstructured)
		if err := json.Unmarshal(text, object); err != nil {
			return nil, fmt.Errorf("build %s: %w", resource.CurId(), err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// overlay writes a kustomization with the settings into a new directory.
func overlay(s Settings) (string, error) {
	manifests, err := filepath.Abs(s.Manifests)
	if err != nil {
		return "", fmt.Errorf("find manifests: %w", err)
	}
	directory, err := os.MkdirTemp("", "metaparticle-install-")
	if err != nil {
		return "", fmt.Errorf("make overlay: %w", err)
	}
	// Kustomize requires relative paths, and resolves symbolic links.
	base, err := filepath.EvalSymlinks(directory)
	if err != nil {
		return "", fmt.Errorf("make overlay: %w", err)
	}
	if manifests, err = filepath.EvalSymlinks(manifests); err != nil {
		return "", fmt.Errorf("find manifests: %w", err)
	}
	relative, err := filepath.Rel(base, manifests)
	if err != nil {
		return "", fmt.Errorf("find manifests: %w", err)
	}
	kustomization := types.Kustomization{Resources: []string{relative}}
	for _, component := range s.Components {
		kustomization.Components = append(kustomization.Components, filepath.Join(relative, "components", component))
	}
	for name, reference := range map[string]string{"metaparticle-webhook": s.WebhookImage, "metaparticle-agent": s.AgentImage} {
		if reference != "" {
			kustomization.Images = append(kustomization.Images, image(name, reference))
		}
	}
	// The webhook gets the agent's image in an environment variable. The file images.yaml
	// makes kustomize replace that image, too.
	kustomization.Configurations = []string{filepath.Join(relative, "images.yaml")}
	for _, registry := range s.PlainHTTP {
		kustomization.Patches = append(kustomization.Patches, types.Patch{
			Target: &types.Selector{ResId: resid.ResId{Gvk: resid.Gvk{Kind: "Deployment"}, Name: "metaparticle-webhook"}},
			Patch: fmt.Sprintf(`[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": %q}]`,
				"--plain-http-registry="+registry),
		})
	}
	if s.Origins {
		kustomization.BuildMetadata = []string{types.OriginAnnotations}
	}
	text, err := yaml.Marshal(kustomization)
	if err != nil {
		return "", fmt.Errorf("make overlay: %w", err)
	}
	return directory, os.WriteFile(filepath.Join(directory, "kustomization.yaml"), text, 0o600)
}

// image splits a reference into kustomize's fields. A reference without a tag and without a digest
// gets the tag "latest".
func image(name, reference string) types.Image {
	if repository, digest, ok := strings.Cut(reference, "@"); ok {
		return types.Image{Name: name, NewName: repository, Digest: digest}
	}
	// A colon after the last slash precedes a tag. An earlier colon precedes a port.
	if at := strings.LastIndex(reference, ":"); at > strings.LastIndex(reference, "/") {
		return types.Image{Name: name, NewName: reference[:at], NewTag: reference[at+1:]}
	}
	return types.Image{Name: name, NewName: reference, NewTag: "latest"}
}

// Print writes objects as YAML, each after a line with three dashes.
func Print(out io.Writer, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		text, err := yaml.Marshal(object)
		if err != nil {
			return fmt.Errorf("print %s: %w", object.GetName(), err)
		}
		if _, err := fmt.Fprintf(out, "---\n%s", text); err != nil {
			return err
		}
	}
	return nil
}
