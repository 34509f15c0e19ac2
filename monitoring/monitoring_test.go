// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite prometheusrule.yaml")

// promtool runs Debian's promtool on files.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing: make unit installs Debian's package prometheus")
	}
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	return string(out), err
}

// written writes a file for promtool, and returns its path.
func written(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// ruleFile is the part of a file of rules that the tests read.
type ruleFile struct {
	Groups []struct {
		Rules []struct{ Alert string }
	}
}

// caseFile is the part of rules_test.yaml that the tests read.
type caseFile struct {
	Tests []struct {
		Cases []struct {
			Alert    string `json:"alertname"`
			Expected []any  `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	}
}

func TestAlertRulesPassTheirPromtoolTestCases(t *testing.T) {
	out, err := promtool(t, "test", "rules", "rules_test.yaml")
	require.NoError(t, err, out)
}

// threshold matches a comparison with a number at the end of a line.
var threshold = regexp.MustCompile(`(?m)([<>]) [\d.]+( \* [\d* ]+)?$`)

// With thresholds that no value reaches, no alert fires. Then each case that expects an alert must
// fail.
func TestPromtoolNoticesRulesThatNeverFire(t *testing.T) {
	dir, expects := t.TempDir(), 0
	for _, test := range cases(t).Tests {
		for _, c := range test.Cases {
			expects += min(len(c.Expected), 1)
		}
	}
	never := threshold.ReplaceAllStringFunc(Rules, func(found string) string {
		return map[byte]string{'>': "> 1e15", '<': "< -1e15"}[found[0]]
	})
	written(t, dir, "rules.yaml", never)
	text, err := os.ReadFile("rules_test.yaml")
	require.NoError(t, err)
	out, err := promtool(t, "test", "rules", written(t, dir, "rules_test.yaml", string(text)))
	require.Error(t, err)
	assert.Equal(t, expects, strings.Count(out, "got:[]"), out)
}

// cases returns the test cases in rules_test.yaml.
func cases(t *testing.T) (cases caseFile) {
	t.Helper()
	text, err := os.ReadFile("rules_test.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &cases))
	return cases
}

func TestEachAlertHasFiringAndSilentTestCases(t *testing.T) {
	type seen struct{ fires, ends, silent bool }
	all := map[string]seen{}
	for _, test := range cases(t).Tests {
		alert, last, fires := "", 0, false
		for _, c := range test.Cases {
			alert, last, fires = c.Alert, len(c.Expected), fires || len(c.Expected) > 0
		}
		s := all[alert]
		s.fires, s.ends, s.silent = s.fires || fires, s.ends || fires && last == 0, s.silent || !fires
		all[alert] = s
	}
	for _, alert := range alerts(t) {
		assert.Equal(t, seen{true, true, true}, all[alert], alert)
	}
	assert.Len(t, all, len(alerts(t)))
}

// alerts returns the names of all alerts.
func alerts(t *testing.T) (names []string) {
	t.Helper()
	var rules ruleFile
	require.NoError(t, yaml.Unmarshal([]byte(Rules), &rules))
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			names = append(names, r.Alert)
		}
	}
	require.NotEmpty(t, names)
	return names
}

func TestPrometheusRuleObjectMatchesTheRulesFile(t *testing.T) {
	const file = "prometheusrule.yaml"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(Object(Rules)), 0o600))
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, Object(Rules), string(text), "run make golden")
	var object struct{ Spec any }
	var rules any
	require.NoError(t, yaml.Unmarshal(text, &object))
	require.NoError(t, yaml.Unmarshal([]byte(Rules), &rules))
	assert.Equal(t, rules, object.Spec)
}

func TestAcceleratedAlertRulesKeepThresholdsAndShortenDurations(t *testing.T) {
	faster := Faster(Rules, 20)
	assert.Contains(t, faster, "metaparticle_transitions_total[90s]")
	assert.Contains(t, faster, "        for: 3s\n")
	assert.NotRegexp(t, `\[\d+[mh]\]|for: \d+[mh]`, faster)
	assert.Equal(t, strings.Count(Rules, "> 1.5"), strings.Count(faster, "> 1.5"), "thresholds stay")
	out, err := promtool(t, "check", "rules", written(t, t.TempDir(), "faster.yaml", faster))
	require.NoError(t, err, out)
}

// Debian's Prometheus has no discovery by Kubernetes, so the test replaces the discovery by a file.
func TestPrometheusAcceptsTheScrapeConfiguration(t *testing.T) {
	dir := t.TempDir()
	written(t, dir, "rules.yaml", Rules)
	configuration := ByFile(Configuration)
	for _, job := range []string{"metaparticle-agents", "metaparticle-webhook"} {
		written(t, dir, job+".json", "[]")
		assert.Contains(t, configuration, "{files: ["+job+".json]")
	}
	assert.NotContains(t, configuration, "honor_labels: true", "the rules trust the label namespace")
	assert.NotContains(t, configuration, "kubernetes_sd")
	out, err := promtool(t, "check", "config", written(t, dir, "prometheus.yaml", configuration))
	require.NoError(t, err, out)
}

// scrape is a scrape job of prometheus.yaml, or the endpoint of the PodMonitor together with the
// limits of the PodMonitor.
type scrape struct {
	SampleLimit, LabelLimit, LabelNameLengthLimit, LabelValueLengthLimit int
	BodySizeLimit                                                        string
	HonorLabels, HonorTimestamps, FollowRedirects                        bool
	Keep                                                                 string
}

// scrapes returns how prometheus.yaml and the PodMonitor scrape agents.
func scrapes(t *testing.T) (job, monitor scrape) {
	t.Helper()
	var file struct {
		Jobs []struct {
			Name                  string    `json:"job_name"`
			SampleLimit           int       `json:"sample_limit"`
			LabelLimit            int       `json:"label_limit"`
			LabelNameLengthLimit  int       `json:"label_name_length_limit"`
			LabelValueLengthLimit int       `json:"label_value_length_limit"`
			BodySizeLimit         string    `json:"body_size_limit"`
			HonorLabels           bool      `json:"honor_labels"`
			HonorTimestamps       *bool     `json:"honor_timestamps"`
			FollowRedirects       *bool     `json:"follow_redirects"`
			Relabel               []relabel `json:"metric_relabel_configs"`
		} `json:"scrape_configs"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(Configuration), &file))
	j := file.Jobs[0]
	require.Equal(t, "metaparticle-agents", j.Name)
	require.Len(t, j.Relabel, 1)
	job = scrape{
		j.SampleLimit, j.LabelLimit, j.LabelNameLengthLimit, j.LabelValueLengthLimit, j.BodySizeLimit,
		j.HonorLabels, j.HonorTimestamps == nil || *j.HonorTimestamps, j.FollowRedirects == nil || *j.FollowRedirects, j.Relabel[0].Regex,
	}
	text, err := os.ReadFile("../manifests/components/monitoring/podmonitor.yaml")
	require.NoError(t, err)
	var object struct {
		Spec struct {
			SampleLimit, LabelLimit, LabelNameLengthLimit, LabelValueLengthLimit int
			BodySizeLimit                                                        string
			PodMetricsEndpoints                                                  []struct {
				HonorLabels                      bool
				HonorTimestamps, FollowRedirects *bool
				MetricRelabelings                []relabel
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &object))
	m := object.Spec
	e := m.PodMetricsEndpoints[0]
	require.Len(t, e.MetricRelabelings, 1)
	monitor = scrape{
		m.SampleLimit, m.LabelLimit, m.LabelNameLengthLimit, m.LabelValueLengthLimit, m.BodySizeLimit,
		e.HonorLabels, e.HonorTimestamps == nil || *e.HonorTimestamps, e.FollowRedirects == nil || *e.FollowRedirects, e.MetricRelabelings[0].Regex,
	}
	return job, monitor
}

// relabel is a rule that changes or drops samples.
type relabel struct{ Action, Regex string }

func TestPrometheusLimitsAndFiltersMetricsFromAgents(t *testing.T) {
	job, monitor := scrapes(t)
	assert.Equal(t, job, monitor)
	assert.Positive(t, job.SampleLimit)
	assert.Positive(t, job.LabelLimit)
	assert.Positive(t, job.LabelNameLengthLimit)
	assert.Positive(t, job.LabelValueLengthLimit)
	assert.NotEmpty(t, job.BodySizeLimit)
	assert.False(t, job.HonorLabels || job.HonorTimestamps || job.FollowRedirects)
	page, err := os.ReadFile("../docs/reference/metrics.md")
	require.NoError(t, err)
	agent, webhook, ok := strings.Cut(string(page), "\n## Webhook\n")
	require.True(t, ok)
	kept := regexp.MustCompile("^(?:" + job.Keep + ")$")
	for text, keeps := range map[string]bool{agent: true, webhook: false} {
		rows := regexp.MustCompile("(?m)^\\| `(metaparticle_\\w+)`").FindAllStringSubmatch(text, -1)
		require.NotEmpty(t, rows)
		for _, row := range rows {
			assert.Equal(t, keeps, kept.MatchString(row[1]), row[1])
		}
	}
}

func TestDashboardShowsDocumentedMetricsOnly(t *testing.T) {
	page, err := os.ReadFile("../docs/reference/metrics.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, found := range regexp.MustCompile("`(metaparticle_\\w+)`").FindAllStringSubmatch(string(page), -1) {
		documented[found[1]] = true
	}
	for _, text := range append(expressions(t), Rules) {
		names := regexp.MustCompile(`\bmetaparticle_\w+`).FindAllString(text, -1)
		assert.NotEmpty(t, names, text)
		for _, name := range names {
			assert.True(t, documented[name], "%s is not in docs/reference/metrics.md: %s", name, text)
		}
	}
}

func TestExpressionsOfTheDashboardAreValid(t *testing.T) {
	var b strings.Builder
	b.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for i, e := range expressions(t) {
		for variable, value := range map[string]string{"$__rate_interval": "5m", "$__range": "1h", "$namespace": "shop"} {
			e = strings.ReplaceAll(e, variable, value)
		}
		require.NotContains(t, e, "$", "a variable that the test does not know")
		fmt.Fprintf(&b, "      - {record: 'panel:%d', expr: %q}\n", i, e)
	}
	out, err := promtool(t, "check", "rules", "--lint=none", written(t, t.TempDir(), "dashboard.yaml", b.String()))
	require.NoError(t, err, out)
}

// expressions returns the expressions of the dashboard's panels.
func expressions(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	for _, panel := range dashboard.Panels {
		assert.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			all = append(all, target.Expr)
		}
	}
	require.NotEmpty(t, all)
	return all
}
