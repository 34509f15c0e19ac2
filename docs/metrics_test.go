// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/api"
)

// metric is a metric that the code declares.
type metric struct {
	name, kind, help string
	labels           []string
}

// unit returns the unit at the end of the metric's name, or a dash for a name without a unit.
func (m metric) unit() string {
	for _, unit := range []string{"seconds", "bytes"} {
		if strings.HasSuffix(strings.TrimSuffix(m.name, "_total"), "_"+unit) {
			return unit
		}
	}
	return "–"
}

// label is a label of metrics. If the field "values" is empty, the label may have any value.
type label struct {
	name    string
	values  []string
	meaning string
}

func reasonsOfEnds() (reasons []string) {
	for _, why := range ends.All() {
		if !slices.Contains(reasons, why.Reason) {
			reasons = append(reasons, why.Reason)
		}
	}
	return reasons
}

// programs lists the sections of docs/reference/metrics.md. The code in the folders of a section declares the
// metrics of that section. Each value of a label must be a string in this code.
var programs = []struct {
	title, serves string
	folders       []string
	labels        []label
}{
	{
		"Agent", fmt.Sprintf("Each agent serves its metrics on port %d of its pod. The agent of a pod on its node's network\n"+
			"serves none, and neither does the agent of a pod with the [local API](api.md).\n\n"+
			"With `metaparticle.io/gate: pod` the agent's process ends at each drain. Prometheus does not see what a counter\n"+
			"counted after the last scrape of that process. So `metaparticle_holds_ended_total` misses most ends of holds.", api.AgentPort), []string{"agent", "cmd/agent", "api"},
		[]label{
			{"result", []string{"stored", "conflict", "refused", "unanswered"}, "`conflict`: another write came first. `refused`: " +
				"the API server refused the write. `unanswered`: the agent does not know yet whether the write was stored"},
			{"reason", reasonsOfEnds(),
				"`Ended`: the application ended by itself. All other values are also reasons of Events of the pod, which tell more"},
			{"workload", nil, "Kind and name, such as `Deployment/web`; for other groups than Kubernetes' own `Kind.group/name`"},
		},
	},
	{
		"Webhook", "Each replica serves its metrics on port 8080, beside those that its libraries have\n" +
			"(`controller_runtime_…`, `workqueue_…`, `go_…`, `process_…`).", []string{"cmd/webhook", "enroll", "mutate"},
		[]label{
			{"result", []string{"unchanged", "patched", "denied"}, "The answer to the API server"},
			{"reason", nil, "A name of [reasons](../troubleshoot/reasons.md), or nothing"},
			{"namespace", nil, "A namespace with pods that claim slots. Prometheus calls this label `exported_namespace`, " +
				"because the label `namespace` is that of the webhook's own pod. [The alerts](../troubleshoot/alerts.md) need both labels, so do not scrape with `honor_labels`"},
			{"step", []string{"read", "slots", "conditions", "variables", "pull-secrets", "bindings", "sweep", "events", "stamps", "hints"},
				"A step of enrolling a namespace. [The alert](../troubleshoot/alerts.md#metaparticleenrollfails) says what each step does"},
			{"pause", nil, "`hold`, `stop` or `recover`, as `kubectl metaparticle status` shows it. Any other text in the annotation counts as `hold`"},
		},
	},
}

// TestMetricsAreDocumented checks that docs/reference/metrics.md lists all metrics in the code. With
// -update the test rewrites the page.
func TestMetricsAreDocumented(t *testing.T) {
	const file = "reference/metrics.md"
	var b strings.Builder
	b.WriteString("<!-- Generated from the code by make golden. Do not edit. -->\n\n# Metrics\n\n" +
		"All metrics are in Prometheus' text format at `/metrics`. A counter begins at zero with its process.\n")
	for _, p := range programs {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n", p.title, p.serves)
		found := metricsOf(t, p.folders)
		require.NotEmpty(t, found)
		for _, m := range found {
			assert.NotEmpty(t, m.help, "%s has no help text", m.name)
			assert.True(t, strings.HasPrefix(m.name, "metaparticle_"), "%s has no prefix", m.name)
			assert.Equal(t, m.kind == "counter", strings.HasSuffix(m.name, "_total"), "%s: a counter, and nothing else, ends with _total", m.name)
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.name, m.kind, cmp.Or(strings.Join(m.labels, ", "), "–"), m.unit(), m.help)
		}
		fmt.Fprint(&b, "\n| label | values | meaning |\n|---|---|---|\n")
		code := codeOf(t, p.folders)
		for _, l := range p.labels {
			for _, value := range l.values {
				assert.Contains(t, code, strconv.Quote(value), "no metric of the %s can have %s %q", p.title, l.name, value)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s. |\n", l.name, cmp.Or(strings.Join(l.values, ", "), "–"), l.meaning)
		}
	}
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	}
	is, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, b.String(), string(is), "run make golden")
}

// sources calls the function "visit" with the path of each Go file below the folders, except tests.
func sources(t *testing.T, folders []string, visit func(path string) error) {
	t.Helper()
	for _, folder := range folders {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			return visit(path)
		}))
	}
}

// codeOf returns the code below the folders.
func codeOf(t *testing.T, folders []string) string {
	t.Helper()
	var b strings.Builder
	sources(t, folders, func(path string) error {
		text, err := os.ReadFile(path)
		b.Write(text)
		return err
	})
	return b.String()
}

// metricsOf returns the metrics that the code below the folders declares, sorted by name. The agent
// declares its metrics in a table of type family, and the webhook by calls of package prometheus.
func metricsOf(t *testing.T, folders []string) []metric {
	t.Helper()
	var all []metric
	sources(t, folders, func(path string) error {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				all = append(all, ofTable(n)...)
			case *ast.CallExpr:
				all = append(all, ofCall(n)...)
			}
			return true
		})
		return nil
	})
	slices.SortFunc(all, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	return all
}

// ofTable returns the metrics in a literal of the type []family. For a literal of another type, the
// result is empty.
func ofTable(table *ast.CompositeLit) []metric {
	slice, ok := table.Type.(*ast.ArrayType)
	if !ok {
		return nil
	}
	if element, ok := slice.Elt.(*ast.Ident); !ok || !strings.EqualFold(element.Name, "family") {
		return nil
	}
	var all []metric
	for _, row := range table.Elts {
		m := metric{}
		for key, value := range fieldsOf(row) {
			switch strings.ToLower(key) {
			case "name":
				m.name = literal(value)
			case "kind":
				m.kind = literal(value)
			case "help":
				m.help = literal(value)
			case "label":
				m.labels = []string{"`" + literal(value) + "`"}
			}
		}
		all = append(all, m)
	}
	return all
}

// ofCall returns the metric that a call of package prometheus declares, such as
// NewCounter(CounterOpts{…}) or NewCounterVec(CounterOpts{…}, []string{label, …}). For any other
// call, the result is empty.
func ofCall(call *ast.CallExpr) []metric {
	function, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return nil
	}
	kind, isNew := strings.CutPrefix(function.Sel.Name, "New")
	if library, ok := function.X.(*ast.Ident); !ok || library.Name != "prometheus" || !isNew {
		return nil
	}
	fields := fieldsOf(call.Args[0])
	m := metric{
		name: literal(fields["Name"]), help: literal(fields["Help"]),
		kind: strings.ToLower(strings.TrimSuffix(kind, "Vec")),
	}
	if labels, ok := call.Args[len(call.Args)-1].(*ast.CompositeLit); ok && len(call.Args) > 1 {
		for _, label := range labels.Elts {
			m.labels = append(m.labels, "`"+literal(label)+"`")
		}
	}
	return []metric{m}
}

// fieldsOf returns the fields of a struct's literal, by name.
func fieldsOf(expression ast.Expr) map[string]ast.Expr {
	fields := map[string]ast.Expr{}
	if literal, ok := expression.(*ast.CompositeLit); ok {
		for _, element := range literal.Elts {
			if pair, ok := element.(*ast.KeyValueExpr); ok {
				if key, ok := pair.Key.(*ast.Ident); ok {
					fields[key.Name] = pair.Value
				}
			}
		}
	}
	return fields
}

// literal returns the text of a string, or of concatenated strings.
func literal(expression ast.Expr) string {
	switch e := expression.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		return text
	case *ast.BinaryExpr:
		return literal(e.X) + literal(e.Y)
	}
	return ""
}
