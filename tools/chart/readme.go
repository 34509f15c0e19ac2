// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// readmeFile is the path of the page that shows the chart in registries and on GitHub.
const readmeFile = "README.md"

// The table of values is between these lines of README.md.
const tableBegins, tableEnds = "<!-- values: made from values.yaml by make golden -->\n", "<!-- end of values -->\n"

// property is the part of values.schema.json that the table needs.
type property struct {
	Description string
	Properties  map[string]property
}

// withTable replaces the table in the text of README.md by that of the values.
func withTable(readme, values, schema string) (string, error) {
	before, rest, begins := strings.Cut(readme, tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return "", errors.New("the lines around the table of values are missing")
	}
	var top property
	if err := json.Unmarshal([]byte(schema), &top); err != nil {
		return "", fmt.Errorf("values.schema.json: %w", err)
	}
	parsed, err := yaml.Parse(values)
	if err != nil {
		return "", fmt.Errorf("values.yaml: %w", err)
	}
	rows, err := valueRows("", parsed.YNode(), top)
	if err != nil {
		return "", err
	}
	return before + tableBegins + "| value | default | effect |\n|---|---|---|\n" + strings.Join(rows, "") + tableEnds + after, nil
}

// valueRows returns the table's rows for a map of values. A value's comment describes the value, and
// else its description in the schema. A map that is written in one line is one value, and so is an
// empty map.
func valueRows(path string, values *yaml.Node, schema property) (rows []string, err error) {
	for i := 0; i < len(values.Content); i += 2 {
		key, value := values.Content[i], values.Content[i+1]
		name, of := path+key.Value, schema.Properties[key.Value]
		effect := strings.TrimSpace(strings.ReplaceAll(strings.ReplaceAll("\n"+key.HeadComment, "\n# ", " "), "\n", " "))
		if effect = cmp.Or(effect, of.Description); effect == "" && path == "" {
			return nil, fmt.Errorf("%s has no comment in values.yaml, and no description in values.schema.json", name)
		}
		if value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0 {
			more, err := valueRows(name+".", value, of)
			if err != nil {
				return nil, err
			}
			rows = append(append(rows, row(name, "", effect)), more...)
			continue
		}
		shown := *value
		shown.Style |= yaml.FlowStyle
		text, err := yaml.NewRNode(&shown).String()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, row(name, "`"+strings.Join(strings.Fields(text), " ")+"`", effect))
	}
	return rows, nil
}

func row(name, value, effect string) string {
	return fmt.Sprintf("| `%s` | %s | %s |\n", name, value, strings.ReplaceAll(effect, "|", `\|`))
}
