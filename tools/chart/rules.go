// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/metaparticle-io/metaparticle/monitoring"
)

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
	return "# Made from monitoring/rules.yaml by tools/chart (make chart).\n" +
		"{{- if .Values.monitoring.prometheusRule.enabled }}\n" + text + "{{- end }}\n", nil
}
