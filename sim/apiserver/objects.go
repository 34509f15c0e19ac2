// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/json"
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Objects has the objects of one namespace, with all their states.
type Objects struct {
	keys   []string // the keys of all objects, deleted ones too, in the order of creation
	of     map[string]*Object
	rights map[string]rights // the decoded Roles, by name
}

func newObjects() Objects { return Objects{of: map[string]*Object{}, rights: map[string]rights{}} }

// Object returns the object of a kind and a name. An object that never existed has no state.
func (s *Objects) Object(kind, name string) *Object {
	key := kind + "/" + name
	o := s.of[key]
	if o == nil {
		o = &Object{kind: kind, name: name}
		s.of[key] = o
		s.keys = append(s.keys, key)
	}
	return o
}

// Get returns the current state of an object.
func (s *Objects) Get(kind, name string) ([]byte, error) {
	v := s.Object(kind, name).Last()
	if v.Body == nil {
		return nil, Status(404, "NotFound", kind+" "+name)
	}
	return v.Raw, nil
}

// Exists reports whether the object exists.
func (s *Objects) Exists(kind, name string) bool { return s.Object(kind, name).Last().Body != nil }

// Names returns the names of the existing objects of a kind, in the order of their creation.
func (s *Objects) Names(kind string) (names []string) {
	for _, key := range s.keys {
		if o := s.of[key]; o.kind == kind && o.Last().Body != nil {
			names = append(names, o.name)
		}
	}
	return names
}

// Lease returns the current state of a Lease. If the Lease does not exist, the result is false.
func (s *Objects) Lease(name string) (*Lease, bool) {
	v := s.Object("Lease", name).Last()
	if v.Body == nil {
		return nil, false
	}
	return v.Lease, true
}

// List returns the objects of a kind as a list's JSON. For each object, the function "at" returns
// the state that belongs in the list.
func (s *Objects) List(kind string, selects func(labels map[string]string) bool, at func(*Object) Version) []byte {
	items := []json.RawMessage{}
	for _, name := range s.keys {
		o := s.of[name]
		if v := at(o); o.kind == kind && v.Body != nil && selects(labelsOf(v.Body)) {
			items = append(items, v.Raw)
		}
	}
	return Encode(map[string]any{"items": items})
}

// rights has the decoded rules of one version of a Role.
type rights struct {
	version int64
	rules   []Rule
}

// Rule has the fields of a Role's rule. [Objects.Granted] reads them.
type Rule struct {
	// APIGroups, Resources, ResourceNames and Verbs are the fields of the rule in Kubernetes.
	APIGroups     []string `json:"apiGroups"`
	Resources     []string `json:"resources"`
	ResourceNames []string `json:"resourceNames"`
	Verbs         []string `json:"verbs"`
}

// Granted reports whether the named Role lets the pods' account use the verb on the Lease. A
// RoleBinding with the name of the Role must exist.
func (s *Objects) Granted(name, verb, lease string) bool {
	role := s.Object("Role", name).Last()
	if role.Raw == nil || s.Object("RoleBinding", name).Last().Raw == nil {
		return false
	}
	if s.rights[name].version != role.RV {
		var r struct{ Rules []Rule }
		engine.Must(json.Unmarshal(role.Raw, &r))
		s.rights[name] = rights{version: role.RV, rules: r.Rules}
	}
	return slices.ContainsFunc(s.rights[name].rules, func(r Rule) bool {
		return slices.Contains(r.Resources, "leases") && slices.Contains(r.Verbs, verb) && slices.Contains(r.ResourceNames, lease)
	})
}
