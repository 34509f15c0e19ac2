// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package monitoring has the alerts of Metaparticle for Prometheus, a configuration of
// Prometheus, and a dashboard for Grafana. The file rules.yaml is the source of the alerts.
//
// Guarantee: for each alert, rules_test.yaml has cases in which the alert fires, ends and stays
// silent. Each alert has a section in docs/troubleshoot/alerts.md. All durations are those of Prometheus' clock.
// If Prometheus does not scrape a pod, no alert about that pod fires.
package monitoring

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Rules are the alerts, in a file of rules for Prometheus.
//
//go:embed rules.yaml
var Rules string

// Configuration is a configuration of Prometheus that scrapes agents and webhooks.
//
//go:embed prometheus.yaml
var Configuration string

// discovery matches the configuration of a scrape job, from the name of the job to the end of the
// section kubernetes_sd_configs.
var discovery = regexp.MustCompile(`(?m)(^  - job_name: (\S+)\n(?:    .*\n)*?)    kubernetes_sd_configs:\n(?:      .*\n)+`)

// ByFile returns the configuration for a Prometheus without discovery by Kubernetes. Prometheus
// reads the targets of each scrape job from the file JOB.json beside the configuration. That file
// must also have all labels that the discovery would give to a target.
func ByFile(configuration string) string {
	return discovery.ReplaceAllString(configuration, "$1    file_sd_configs:\n      - {files: [$2.json], refresh_interval: 1s}\n")
}

// duration matches the durations of a rule: the range of a counter, and how long an alert is
// pending.
var duration = regexp.MustCompile(`\[(\d+[smh])\]|(?m)^( +for: )(\d+[smh])$`)

// Faster returns the rules with all durations divided by the factor. Thresholds stay. A duration
// becomes no shorter than a second.
func Faster(rules string, factor int) string {
	divide := func(text string) string {
		d, err := time.ParseDuration(text)
		if err != nil {
			panic(fmt.Sprintf("monitoring: the pattern permits %q: %v", text, err))
		}
		return fmt.Sprintf("%ds", max(1, int(d.Seconds())/factor))
	}
	return duration.ReplaceAllStringFunc(rules, func(found string) string {
		parts := duration.FindStringSubmatch(found)
		if parts[1] != "" {
			return "[" + divide(parts[1]) + "]"
		}
		return parts[2] + divide(parts[3])
	})
}

// object is the head of a PrometheusRule.
const object = `# Generated from rules.yaml by make golden. Do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: metaparticle
  namespace: metaparticle-system
  labels:
    app.kubernetes.io/part-of: metaparticle
spec:
`

// Object returns the rules as an object for the Prometheus operator.
func Object(rules string) string {
	var b strings.Builder
	b.WriteString(object)
	for line := range strings.Lines(rules) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString("  " + line)
		}
	}
	return b.String()
}
