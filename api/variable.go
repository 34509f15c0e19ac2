// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "strings"

// Variable is the kind of a claim without slots. Several pods of a namespace can use one Variable
// at the same time, by the local API.
var Variable = &Kind{
	Key: LocalAnnotation, Word: "variable", Ask: LocalAnnotation, Scope: ScopeNamespace,
	parse:  parseVariable,
	slots:  func(Claim, Workload) []string { return nil },
	isSlot: func(string) bool { return false },
}

// These words name Variables, which are custom resources.
const (
	// VariableGroup and VariableVersion are the group and the version of the resource.
	VariableGroup   = "metaparticle.io"
	VariableVersion = "v1alpha1"
	// VariableKind is the kind of a Variable, and VariableResource is the name of its collection in
	// URLs.
	VariableKind     = "Variable"
	VariableResource = "variables"
)

// These bounds are those of the schema in manifests/variables.yaml.
const (
	// MaxValue is the largest number of bytes of a Variable's value, if the value is a text.
	MaxValue = 4096
	// MaxKeys is the largest number of idempotency keys that a Variable keeps, and
	// MaxIdempotencyKey is the length of the longest key.
	MaxKeys           = 64
	MaxIdempotencyKey = 64
)

// FirstEpoch is the epoch that agents of this version of Metaparticle write into each fence. A
// higher epoch is meant for the time after a restore of the cluster, when tokens can begin anew. No
// command raises the epoch yet.
const FirstEpoch = 1

// variablePrefix begins the text that stands for a Variable in [SlotsAnnotation]. No Lease of a
// slot has a name with this prefix.
const variablePrefix = "variable."

// variableMark returns the text that stands for a Variable in [SlotsAnnotation].
func variableMark(name string) string { return variablePrefix + name }

// VariableOf returns the name of the Variable that an entry of [SlotsAnnotation] stands for. The
// second result is false for any other entry.
func VariableOf(mark string) (name string, ok bool) {
	name, ok = strings.CutPrefix(mark, variablePrefix)
	return name, ok && len(mark) <= maxName && isSubdomain(name)
}

// parseVariable reads the name of a Variable, which has no slots.
func parseVariable(value string) ([]Claim, string) {
	if _, ok := VariableOf(variableMark(value)); !ok {
		return nil, "a variable needs a name of lower-case letters, digits, dashes and dots, with a letter or digit at both ends"
	}
	return []Claim{{Name: value}}, ""
}

// Variables returns the names of the Variables that the pod uses.
func (r Request) Variables() []string {
	var names []string
	for _, c := range r.Claimed {
		if c.Kind == Variable {
			names = append(names, c.Name)
		}
	}
	return names
}
