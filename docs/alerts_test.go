// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"strings"
	"testing"

	"github.com/gomarkdown/markdown/ast"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/monitoring"
)

// alert is a rule of monitoring/rules.yaml.
type alert struct {
	Alert, For          string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alert }
	}
	require.NoError(t, yaml.Unmarshal([]byte(monitoring.Rules), &file))
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// TestAlertsPageHasASectionForEachAlert checks that alerts.md has one section for each alert, in
// the order of rules.yaml. Each section must have its four parts.
func TestAlertsPageHasASectionForEachAlert(t *testing.T) {
	var sections, names []string
	parts := map[string][]string{}
	for _, node := range parse(t, "troubleshoot/alerts.md").GetChildren() {
		if heading, ok := node.(*ast.Heading); ok && heading.Level == 2 {
			sections = append(sections, text(heading))
		} else if len(sections) > 0 {
			ast.WalkFunc(node, func(node ast.Node, entering bool) ast.WalkStatus {
				if strong, ok := node.(*ast.Strong); ok && entering {
					section := sections[len(sections)-1]
					parts[section] = append(parts[section], strings.TrimSuffix(text(strong), "."))
				}
				return ast.GoToNext
			})
		}
	}
	for _, a := range alerts(t) {
		names = append(names, a.Alert)
		assert.Equal(t, []string{"Meaning", "Look", "Do", "Ignore"}, parts[a.Alert], a.Alert)
	}
	assert.Equal(t, names, sections)
}

func TestEachAlertNamesItsRunbook(t *testing.T) {
	for _, a := range alerts(t) {
		assert.Equal(t, "https://github.com/metaparticle-io/metaparticle/blob/main/docs/troubleshoot/alerts.md#"+strings.ToLower(a.Alert), a.Annotations["runbook_url"])
		assert.Contains(t, []string{"critical", "warning"}, a.Labels["severity"], a.Alert)
		assert.NotEmpty(t, a.For, a.Alert)
		assert.NotEmpty(t, a.Annotations["summary"], a.Alert)
	}
}
