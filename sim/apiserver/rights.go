// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/json"
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// rights has the decoded rules of one version of a Role.
type rights struct {
	version int64
	rules   []Rule
}

// Rule has the fields of a Role's rule. [Server.Granted] reads them.
type Rule struct {
	// APIGroups, Resources, ResourceNames and Verbs are the fields of the rule in Kubernetes.
	APIGroups     []string `json:"apiGroups"`
	Resources     []string `json:"resources"`
	ResourceNames []string `json:"resourceNames"`
	Verbs         []string `json:"verbs"`
}

// Granted reports whether the pods' account has the right by the named Role. The Role must
// give the right, and a RoleBinding of that name must bind the Role.
func (s *Server) Granted(name, verb, lease string) bool {
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
