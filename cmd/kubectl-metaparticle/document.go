// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/pmezard/go-difflib/difflib"
	operations "gomodules.xyz/jsonpatch/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/mutate"
)

// errPath means that the text of a document has no place to which an operation's path leads.
var errPath = errors.New("no such place in the text")

// document is one object of a manifest.
type document struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	// text is the object as the author wrote it; raw is the same object as JSON.
	text, raw []byte
}

func (d document) String() string {
	if d.Kind == "" {
		return "a document"
	}
	name := d.Name
	if name == "" {
		name = d.GenerateName + "*"
	}
	return d.Kind + "/" + name
}

// read splits a manifest into documents, and a List into its items.
func read(in io.Reader) ([]document, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(in))
	var all []document
	for {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		found, err := open(text)
		if err != nil && isTemplate(text) {
			err = fmt.Errorf("%w: render a template first, as by helm template", err)
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", len(all)+1, err)
		}
		all = append(all, found...)
	}
}

func open(text []byte) ([]document, error) {
	if err := judgeAliases(text); err != nil {
		return nil, err
	}
	raw, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	d := document{text: text, raw: raw}
	if string(raw) == "null" {
		return []document{d}, nil // the document has only comments
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		// Whatever else is wrong with an object, this command has nothing to say about it if nobody claims.
		if unnamed := d.nameless(); unnamed.objectless() || !unnamed.mentions() {
			return []document{unnamed}, nil
		}
		return nil, mutate.Malformed(err)
	}
	if !strings.HasSuffix(d.Kind, "List") {
		return []document{d}, nil
	}
	var of struct {
		Items *[]map[string]json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(raw, &of); err != nil || of.Items == nil {
		if d.Kind == "List" {
			return nil, err
		}
		return []document{d}, nil // a kind of its own, whose name ends like that of a list
	}
	var items []document
	for _, item := range *of.Items {
		if kind := strings.TrimSuffix(d.Kind, "List"); kind != "" && item != nil && item["kind"] == nil {
			// In a list of one kind, such as a DeploymentList, the items may lack it.
			item["kind"], _ = json.Marshal(kind)
			item["apiVersion"], _ = json.Marshal(d.APIVersion)
		}
		block, err := yaml.Marshal(item)
		if err != nil {
			return nil, err
		}
		inner, err := open(block)
		if err != nil {
			return nil, err
		}
		items = append(items, inner...)
	}
	return items, nil
}

// nameless returns the document with no more than its kind.
func (d document) nameless() document {
	d = document{text: d.text, raw: d.raw}
	if json.Unmarshal(d.raw, &d.TypeMeta) != nil {
		d.TypeMeta = metav1.TypeMeta{}
	}
	return d
}

// objectless reports whether the document is no object of Kubernetes.
func (d document) objectless() bool { return d.Kind == "" || d.APIVersion == "" }

// mentions reports whether anything in the document can be ours. The command leaves every other document
// alone.
func (d document) mentions() bool { return bytes.Contains(d.raw, []byte("metaparticle")) }

// unrendered reports that the object has no name before a program has filled the text in, which happens to be
// YAML before that, too.
func (d document) unrendered() bool { return isTemplate([]byte(d.Name + d.GenerateName)) }

// change contains a document before and after the operations, in the same YAML style.
type change struct{ before, after string }

// patch applies operations to the document. If the text itself can be edited, its
// comments, indentation and sequence of fields stay. Otherwise the object is encoded anew.
func (d document) patch(made []operation) (change, error) {
	result, err := apply(d.raw, made)
	if err != nil {
		return change{}, err
	}
	if c, err := d.edit(made); err == nil && same([]byte(c.after), result) {
		return c, nil
	}
	before, err := yaml.JSONToYAML(d.raw)
	if err != nil {
		return change{}, err
	}
	after, err := yaml.JSONToYAML(result)
	return change{string(before), string(after)}, err
}

// apply returns the object after the operations.
func apply(raw []byte, made []operation) ([]byte, error) {
	encoded, err := json.Marshal(made)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(encoded)
	if err != nil {
		return nil, err
	}
	result, err := patch.Apply(raw)
	if err != nil {
		return nil, fmt.Errorf("apply patch: %w", err)
	}
	return result, nil
}

// operation is one JSON patch operation of the webhook's answer.
type operation = operations.Operation

// same reports whether the text and the JSON have the same content.
func same(text, raw []byte) bool {
	var a, b any
	is, err := yaml.YAMLToJSON(text)
	return err == nil && json.Unmarshal(is, &a) == nil && json.Unmarshal(raw, &b) == nil && reflect.DeepEqual(a, b)
}

// edit applies the operations to the text itself.
func (d document) edit(made []operation) (change, error) {
	var root kyaml.Node
	if err := kyaml.Unmarshal(d.text, &root); err != nil {
		return change{}, err
	}
	if root.Kind != kyaml.DocumentNode || root.Content[0].Style&kyaml.FlowStyle != 0 {
		return change{}, errPath
	}
	options := &kyaml.EncoderOptions{SeqIndent: kyaml.SequenceIndentStyle(kyaml.DeriveSeqIndentStyle(string(d.text)))}
	before, err := kyaml.MarshalWithOptions(&root, options)
	if err != nil {
		return change{}, err
	}
	for _, o := range made {
		if err := editOne(root.Content[0], o); err != nil {
			return change{}, err
		}
	}
	after, err := kyaml.MarshalWithOptions(&root, options)
	return change{string(before), string(after)}, err
}

func editOne(at *kyaml.Node, o operation) error {
	steps := strings.Split(strings.TrimPrefix(o.Path, "/"), "/")
	for i, step := range steps {
		steps[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
	}
	last := len(steps) - 1
	for _, step := range steps[:last] {
		i, ok := find(at, step)
		if !ok {
			return errPath
		}
		at = at.Content[i]
	}
	i, there := find(at, steps[last])
	if o.Operation == "remove" {
		if !there || at.Kind != kyaml.MappingNode {
			return errPath
		}
		at.Content = append(at.Content[:i-1], at.Content[i+1:]...)
		return nil
	}
	value, err := node(o.Value)
	switch {
	case err != nil:
		return err
	case there:
		at.Content[i] = value
	case at.Kind == kyaml.MappingNode:
		at.Content = append(at.Content, &kyaml.Node{Kind: kyaml.ScalarNode, Value: steps[last]}, value)
	case at.Kind == kyaml.SequenceNode && steps[last] == "-":
		at.Content = append(at.Content, value)
	default:
		return errPath
	}
	return nil
}

// find returns the index of a member's value, or of an element, in the node's content. The
// second result reports whether the node has that member or element.
func find(at *kyaml.Node, step string) (int, bool) {
	switch at.Kind {
	case kyaml.MappingNode:
		for i := 0; i+1 < len(at.Content); i += 2 {
			if at.Content[i].Value == step {
				return i + 1, true
			}
		}
	case kyaml.SequenceNode:
		i, err := strconv.Atoi(step)
		return i, err == nil && i >= 0 && i < len(at.Content)
	default: // a scalar has no members; an alias stands for another place
	}
	return 0, false
}

// node returns a value in the usual YAML style.
func node(value any) (*kyaml.Node, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	text, err := yaml.JSONToYAML(raw)
	if err != nil {
		return nil, err
	}
	var root kyaml.Node
	if err := kyaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	return root.Content[0], nil
}

// diff returns the change as a unified diff.
func (c change) diff(name, made string) (string, error) {
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: lines(c.before), FromFile: name, B: lines(c.after), ToFile: made, Context: 3,
	})
}

func lines(text string) []string {
	all := strings.SplitAfter(text, "\n")
	if all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	return all
}

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
