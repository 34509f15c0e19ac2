// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/metaparticle-io/metaparticle/monitoring"
)

// place is a field of an object. The chart sets this field from the chart's values.
type place struct {
	kind, name string
	// path leads to the field's YAML node. If the manifests lack the field, the last element is "-"
	// for a further element of a list, or "+" for a further key of a map.
	path []string
	// text replaces the scalar. A text that begins with a line feed replaces all lines of the
	// node. Each line gets the node's indentation, and @n stands for that indentation plus n
	// columns.
	text string
}

// pod is the path from a Deployment to the spec of its pods. container is the path to the webhook's
// container.
var (
	pod       = []string{"spec", "template", "spec"}
	container = of(pod, "containers", "[name=webhook]")
)

// places lists all fields of objects into which the chart puts values.
var places = []place{
	in("{{ include \"metaparticle.replicas\" . }}", "spec", "replicas"),
	in("\n{{- with omit .Values.podLabels \"app.kubernetes.io/name\" }}\n{{- toYaml . | nindent @0 }}\n{{- end }}", of(pod[:2], "metadata", "labels", "+")...),
	in("\n{{- with .Values.podAnnotations }}\n{{- toYaml . | nindent @0 }}\n{{- end }}", of(pod[:2], "metadata", "annotations", "+")...),
	in("\n{{- with .Values.priorityClassName }}\npriorityClassName: {{ . }}\n{{- end }}", of(pod, "priorityClassName")...),
	in("\nnodeSelector:\n{{- toYaml .Values.nodeSelector | nindent @2 }}", of(pod, "nodeSelector")...),
	in("\ntolerations:\n{{- toYaml .Values.tolerations | nindent @2 }}", of(pod, "tolerations")...),
	in("\ntopologySpreadConstraints:\n{{- toYaml .Values.topologySpreadConstraints | nindent @2 }}", of(pod, "topologySpreadConstraints")...),
	in("\n{{- with .Values.imagePullSecrets }}\nimagePullSecrets:\n{{- toYaml . | nindent @0 }}\n{{- end }}", of(pod, "+")...),
	in("\n{{- if not .Values.hostNetwork }}\n{{- with .Values.affinity }}\naffinity:\n{{- toYaml . | nindent @2 }}\n{{- end }}\n{{- end }}", of(pod, "+")...),
	in("\n{{- with omit .Values.affinity \"podAntiAffinity\" }}\n{{- toYaml . | nindent @0 }}\n{{- end }}", of(pod, "affinity", "+")...),
	in("{{ include \"metaparticle.image\" (merge (dict \"name\" \"webhook\") .) | quote }}", of(container, "image")...),
	in("{{ include \"metaparticle.image\" (merge (dict \"name\" \"agent\") .) | quote }}", of(container, "env", "[name=AGENT_IMAGE]", "value")...),
	in("\n{{- with .Values.image.pullPolicy }}\nimagePullPolicy: {{ . }}\n{{- end }}", of(container, "+")...),
	in("\nresources:\n{{- toYaml .Values.resources | nindent @2 }}", of(container, "resources")...),
	in("\n{{- with .Values.env }}\n{{- toYaml . | nindent @0 }}\n{{- end }}", of(container, "env", "-")...),
	in(`
{{- range .Values.registries.plainHTTP }}
- {{ printf "--plain-http-registry=%s" . | quote }}
{{- end }}
{{- range .Values.registries.mirrors }}
- {{ printf "--registry-mirror=%s" . | quote }}
{{- end }}
{{- range .Values.registries.networks }}
- {{ printf "--registry-network=%s" . | quote }}
{{- end }}
{{- if .Values.registries.caConfigMap }}
- --registry-ca=/registries/ca.crt
{{- end }}
{{- with .Values.registries.timeout }}
- --image-timeout={{ . }}
{{- end }}
{{- if .Values.verbose }}
- --verbose
{{- end }}`, of(container, "args", "-")...),
	in(`
{{- if .Values.registries.caConfigMap }}
- {name: registries, mountPath: /registries, readOnly: true}
{{- end }}`, of(container, "volumeMounts", "-")...),
	in(`
{{- with .Values.registries.caConfigMap }}
- name: registries
  configMap: {name: {{ . }}}
{{- end }}`, of(pod, "volumes", "-")...),
	in("{{ .Values.clientCA.configMap }}", of(pod, "volumes", "[name=callers]", "configMap", "name")...),
	console("{{ include \"metaparticle.image\" (merge (dict \"name\" \"webhook\") .) | quote }}", of(pod, "containers", "[name=console]", "image")...),
	console("\n{{- with .Values.image.pullPolicy }}\nimagePullPolicy: {{ . }}\n{{- end }}", of(pod, "containers", "[name=console]", "+")...),
	console("\nresources:\n{{- toYaml .Values.console.resources | nindent @2 }}", of(pod, "containers", "[name=console]", "resources")...),
	console("\nnodeSelector:\n{{- toYaml (default .Values.nodeSelector .Values.console.nodeSelector) | nindent @2 }}", of(pod, "nodeSelector")...),
	console("\n{{- with .Values.console.priorityClassName }}\npriorityClassName: {{ . }}\n{{- end }}", of(pod, "+")...),
	console("\ntolerations:\n{{- toYaml .Values.tolerations | nindent @2 }}", of(pod, "tolerations")...),
	console("\n{{- with .Values.imagePullSecrets }}\nimagePullSecrets:\n{{- toYaml . | nindent @0 }}\n{{- end }}", of(pod, "+")...),
	{kind: "ServiceAccount", name: "metaparticle-webhook", path: []string{"metadata", "+"},
		text: "\n{{- with .Values.serviceAccount.annotations }}\nannotations:\n{{- toYaml . | nindent @2 }}\n{{- end }}"},
	{kind: "Certificate", name: "metaparticle-webhook", path: []string{"spec", "issuerRef"}, text: `
issuerRef:
  {{- if .Values.certificate.issuerRef.name }}
  {{- toYaml .Values.certificate.issuerRef | nindent @2 }}
  {{- else }}
  group: cert-manager.io
  kind: Issuer
  name: metaparticle-ca
  {{- end }}`},
	{kind: "PodDisruptionBudget", name: "metaparticle-webhook", path: []string{"spec", "maxUnavailable"},
		text: "{{ .Values.podDisruptionBudget.maxUnavailable }}"},
	{kind: "ResourceQuota", name: "metaparticle-critical-pods", path: []string{"spec", "scopeSelector", "matchExpressions", "[scopeName=PriorityClass]", "values"},
		text: "\nvalues: [{{ .Values.priorityClassName }}]"},
	// A policy refuses or warns, as the manifests say.
	{kind: "ValidatingAdmissionPolicyBinding", path: []string{"spec", "validationActions", "-"},
		text: "\n{{- if .Values.policies.audit }}\n- Audit\n{{- end }}"},
	{kind: "CustomResourceDefinition", path: []string{"metadata", "+"}, text: "\nannotations:\n  helm.sh/resource-policy: keep"},
	monitored("ServiceMonitor", "{{- with .Values.monitoring.labels }}\n{{- toYaml . | nindent @0 }}\n{{- end }}", "metadata", "labels", "+"),
	monitored("PodMonitor", "{{- with .Values.monitoring.labels }}\n{{- toYaml . | nindent @0 }}\n{{- end }}", "metadata", "labels", "+"),
	monitored("ServiceMonitor", "{{- with .Values.monitoring.interval }}\ninterval: {{ . }}\n{{- end }}", "spec", "endpoints", "[port=metrics]", "+"),
	monitored("PodMonitor", "{{- with .Values.monitoring.interval }}\ninterval: {{ . }}\n{{- end }}", "spec", "podMetricsEndpoints", "0", "+"),
}

// in returns a place in the webhook's Deployment.
func in(text string, path ...string) place {
	return place{kind: "Deployment", name: "metaparticle-webhook", path: path, text: text}
}

// console returns a place in the console's Deployment.
func console(text string, path ...string) place {
	return place{kind: "Deployment", name: "metaparticle-console", path: path, text: text}
}

// monitored returns a place in an object for the Prometheus Operator.
func monitored(kind, text string, path ...string) place {
	return place{kind: kind, path: path, text: "\n" + text}
}

// of returns the path with further elements.
func of(base []string, path ...string) []string { return slices.Concat(base, path) }

// placeholder returns the placeholder of the place with this number. The function "expand" replaces the
// placeholder. A placeholder needs a line of its own, but the first key of a map may be on the line
// of a list element's dash. So a placeholder that is a key sorts behind all other keys of its map.
func placeholder(number int) string { return fmt.Sprintf("zPLACE%03d", number) }

// sign writes the placeholders of all places into one object. If the object lacks a
// place, sign skips that place, because only a Kustomize component may add the place.
func sign(object *yaml.RNode) error {
	for number, p := range places {
		if object.GetKind() != p.kind || p.name != "" && object.GetName() != p.name {
			continue
		}
		if err := p.sign(object, placeholder(number)); err != nil {
			return fmt.Errorf("%s %s: %w", p.kind, strings.Join(p.path, "."), err)
		}
	}
	return nil
}

func (p place) sign(object *yaml.RNode, placeholder string) error {
	last := len(p.path) - 1
	parent, err := object.Pipe(yaml.Lookup(p.path[:last]...))
	if err != nil || parent == nil {
		return err
	}
	switch p.path[last] {
	case "-":
		parent.YNode().Style &^= yaml.FlowStyle // the text of a place may have several lines
		return parent.PipeE(yaml.Append(yaml.NewStringRNode(placeholder).YNode()))
	case "+":
		return parent.PipeE(yaml.SetField(placeholder, yaml.NewStringRNode("")))
	}
	node, err := parent.Pipe(yaml.Get(p.path[last]))
	if err != nil || node == nil {
		return err
	}
	node.SetYNode(yaml.NewStringRNode(placeholder).YNode())
	return nil
}

// expand replaces the placeholders by the texts of their places.
func expand(text string) (string, error) {
	var out []string
	for line := range strings.Lines(text) {
		for number, p := range places {
			if !strings.Contains(line, placeholder(number)) {
				continue
			}
			indent := len(line) - len(strings.TrimLeft(line, " "))
			block := p.text
			for more := range 4 {
				block = strings.ReplaceAll(block, fmt.Sprintf("@%d", more), fmt.Sprint(indent+more))
			}
			if lines, ok := strings.CutPrefix(block, "\n"); ok {
				line = strings.Repeat(" ", indent) + strings.ReplaceAll(lines, "\n", "\n"+strings.Repeat(" ", indent)) + "\n"
			} else {
				line = strings.Replace(line, placeholder(number), block, 1)
			}
			break
		}
		out = append(out, line)
	}
	text = strings.Join(out, "")
	if strings.Contains(text, "zPLACE") {
		return "", fmt.Errorf("a placeholder is left: %s", text)
	}
	return text, nil
}

// rulesFile is the path of the template with the alerts.
const rulesFile = "templates/prometheusrule.yaml"

// partOf is the label after which the chart adds the labels from its values.
const partOf = "    app.kubernetes.io/part-of: metaparticle\n"

// moreLabels adds the labels by which the user's Prometheus selects rules.
const moreLabels = `    {{- with omit (merge (dict) .Values.monitoring.prometheusRule.labels .Values.monitoring.labels) "app.kubernetes.io/part-of" }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
`

// rules returns the template of the alerts. The file monitoring/rules.yaml is the source of the
// alerts. Their texts contain actions for Prometheus, so the template prints the braces of these
// actions.
func rules() (string, error) {
	text := strings.ReplaceAll(monitoring.Object(monitoring.Rules), "{{", `{{ "{{" }}`)
	text = strings.TrimPrefix(text, "# Generated from rules.yaml by make golden. Do not edit.\n")
	text, err := replaceOnce(text, partOf, partOf+moreLabels)
	if err != nil {
		return "", fmt.Errorf("labels of the alerts: %w", err)
	}
	return "# Made from monitoring/rules.yaml by tools/chart (make golden).\n" +
		"{{- if .Values.monitoring.prometheusRule.enabled }}\n" + text + "{{- end }}\n", nil
}
