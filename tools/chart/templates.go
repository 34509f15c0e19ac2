// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/api/resource"

	"github.com/metaparticle-io/metaparticle/tools/render"
)

// components are all components of the manifests, with the conditions of the chart. The function
// "templates" builds the manifests with one component at a time.
var components = []struct{ name, condition string }{
	{"host-network", ".Values.hostNetwork"},
	{"client-ca", ".Values.clientCA.configMap"},
	{"no-pull-secrets", "not .Values.readPullSecrets"},
	{"network-policy", ".Values.networkPolicy.enabled"},
	{"monitoring", ""},      // changes no object, and adds two
	{"console", ""},         // adds five objects
	{"no-flow-control", ""}, // leaves out three objects
}

// ownCA is the condition for the objects of the webhook's own CA.
const ownCA = "not .Values.certificate.issuerRef.name"

// conditions are the chart's conditions for whole objects, by kind, or by kind and name.
var conditions = map[string]string{
	"ResourceQuota":              "and .Values.resourceQuota.enabled .Values.priorityClassName",
	"NetworkPolicy":              ".Values.networkPolicy.enabled",
	"FlowSchema":                 ".Values.flowControl.enabled",
	"PriorityLevelConfiguration": ".Values.flowControl.enabled",
	"ServiceMonitor":             ".Values.monitoring.serviceMonitor",
	"PodMonitor":                 ".Values.monitoring.podMonitor",
	// The Issuers serve only the webhook's own CA.
	"Issuer": ownCA,
	// These conditions are by kind and name.
	"Certificate/metaparticle-ca":             ownCA,
	"ServiceAccount/metaparticle-console":     ".Values.console.enabled",
	"ClusterRole/metaparticle-console":        ".Values.console.enabled",
	"ClusterRoleBinding/metaparticle-console": ".Values.console.enabled",
	"Deployment/metaparticle-console":         ".Values.console.enabled",
	"NetworkPolicy/metaparticle-console":      ".Values.console.enabled",
}

// omitted is the kind that the chart lacks. Helm stores the release in the namespace before
// Helm applies any object, so a chart cannot contain its own namespace.
const omitted = "Namespace"

// key identifies an object in all variants of the manifests.
func key(object *resource.Resource) string { return object.GetKind() + "/" + object.GetName() }

// source is an object of the manifests.
type source struct {
	key, file string
	lines     []string
}

// templates returns the templates that are made from the manifests, by path.
func templates(manifests string) (map[string]string, error) {
	base, err := sources(manifests)
	if err != nil {
		return nil, err
	}
	changes := map[string][]change{}
	for _, component := range components {
		with, err := sources(manifests, component.name)
		if err != nil {
			return nil, err
		}
		for _, object := range with {
			at := find(base, object.key)
			if at < 0 {
				base = append(base, object)
				continue
			}
			changes[object.key] = append(changes[object.key], compare(base[at].lines, object.lines, component.condition)...)
		}
	}
	files := map[string]string{}
	for _, object := range base {
		lines, err := merge(object.lines, changes[object.key])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", object.key, err)
		}
		text, err := expand(strings.Join(lines, ""))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", object.key, err)
		}
		kind, _, _ := strings.Cut(object.key, "/")
		if condition := cmp.Or(conditions[object.key], conditions[kind]); condition != "" {
			text = "{{- if " + condition + " }}\n" + text + "{{- end }}\n"
		}
		if before := files[object.file]; before != "" {
			text = before + "---\n" + text
		}
		files[object.file] = text
	}
	for name, text := range files {
		files[name] = "# Made from the manifests by tools/chart (make golden).\n" + text
	}
	return files, nil
}

func find(objects []source, key string) int {
	for i, object := range objects {
		if object.key == key {
			return i
		}
	}
	return -1
}

// sources builds the manifests with components, and writes the placeholders of the values into the
// built objects.
func sources(manifests string, components ...string) ([]source, error) {
	built, err := render.Build(render.Settings{Manifests: manifests, Components: components, Origins: true})
	if err != nil {
		return nil, err
	}
	var all []source
	for _, object := range built {
		if object.GetKind() == omitted {
			continue
		}
		file, err := origin(object)
		if err != nil {
			return nil, err
		}
		if err := sign(&object.RNode); err != nil {
			return nil, err
		}
		text, err := printed(object)
		if err != nil {
			return nil, fmt.Errorf("print %s: %w", key(object), err)
		}
		if strings.Contains(text, "{{") {
			return nil, fmt.Errorf("%s contains braces, which Helm would take for an action", key(object))
		}
		all = append(all, source{key(object), file, strings.SplitAfter(strings.TrimRight(text, "\n")+"\n", "\n")})
	}
	for i := range all {
		all[i].lines = all[i].lines[:len(all[i].lines)-1] // the last line is empty
	}
	return all, nil
}

// printed returns the text of an object. A component's patch loses the order, the comments and
// the style of an object. The chart compares the texts with and without the patch. So both
// texts of a patched kind (Deployment, ClusterRole) are printed without the original order,
// comments and style.
func printed(object *resource.Resource) (string, error) {
	if kind := object.GetKind(); kind == "Deployment" || kind == "ClusterRole" {
		text, err := object.AsYAML()
		return string(text), err
	}
	return object.RNode.String()
}

// origin returns the path of an object's template, and removes the annotation that names the
// object's manifest. A template has the name of its manifest.
func origin(object *resource.Resource) (string, error) {
	from, err := object.GetOrigin()
	if err != nil || from == nil {
		return "", fmt.Errorf("%s has no origin: %w", key(object), err)
	}
	if err := object.SetOrigin(nil); err != nil {
		return "", fmt.Errorf("%s: %w", key(object), err)
	}
	parts := strings.Split(filepath.ToSlash(from.Path), "/")
	if last := len(parts) - 1; last > 0 && parts[last-1] == "policies" {
		return filepath.Join("templates", "policies", parts[last]), nil
	}
	return filepath.Join("templates", parts[len(parts)-1]), nil
}
