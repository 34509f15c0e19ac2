// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"
)

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
