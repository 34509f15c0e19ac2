// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"

	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
)

// mostAliased bounds the bytes that the aliases of a document stand for. Without the bound, thousands
// of aliases of a long text turn a document of some kilobytes into gigabytes of JSON. The API server
// accepts no request above 3 MiB.
const mostAliased = 16 << 20

var errAliases = errors.New("the aliases stand for more than 16 MiB")

// judgeAliases returns an error if the aliases of a document make the document too large. A text
// that is no YAML has no such error, because a later step refuses that text.
func judgeAliases(text []byte) error {
	if !bytes.Contains(text, []byte("*")) || !bytes.Contains(text, []byte("&")) {
		return nil // the document has no alias
	}
	var root kyaml.Node
	readable := kyaml.Unmarshal(text, &root) == nil
	// Each node and each character of a scalar takes at least one byte of the text.
	sizes := expander{most: len(text) + mostAliased, known: map[*kyaml.Node]int{}}
	if readable && sizes.of(&root) > sizes.most {
		return errAliases
	}
	return nil
}

// expander computes the size that a node has when its anchor takes the place of each alias. The size
// has the bytes of the node's scalars, and one byte for each node.
type expander struct {
	// most bounds the sizes, so that no sum overflows. A larger size counts as most plus one.
	most int
	// known has the size of each node so far.
	known map[*kyaml.Node]int
}

// The method "of" returns the size of the node.
func (e expander) of(n *kyaml.Node) int {
	if size, ok := e.known[n]; ok {
		return size
	}
	e.known[n] = 0 // the decoder refuses an anchor that contains its own alias
	size := 1 + len(n.Value)
	if n.Kind == kyaml.AliasNode {
		size = e.of(n.Alias)
	}
	for _, part := range n.Content {
		size = min(size+e.of(part), e.most+1)
	}
	e.known[n] = size
	return size
}
