// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"encoding/json"
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// rights has the decoded rules of one version of a Role.
type rights struct {
	version int64
	rules   []rule
}

// rule has the fields of a Role's rule that the API server's authorization reads.
type rule struct {
	APIGroups     []string `json:"apiGroups"`
	Resources     []string `json:"resources"`
	ResourceNames []string `json:"resourceNames"`
	Verbs         []string `json:"verbs"`
}

// granted reports whether the pods' account has the right by the named Role. The Role must
// give the right, and a RoleBinding of that name must bind the Role.
func (s *server) granted(name, verb, lease string) bool {
	role := s.object("Role", name).last()
	if role.raw == nil || s.object("RoleBinding", name).last().raw == nil {
		return false
	}
	if s.rights[name].version != role.rv {
		var r struct{ Rules []rule }
		engine.Must(json.Unmarshal(role.raw, &r))
		s.rights[name] = rights{version: role.rv, rules: r.Rules}
	}
	return slices.ContainsFunc(s.rights[name].rules, func(r rule) bool {
		return slices.Contains(r.Resources, "leases") && slices.Contains(r.Verbs, verb) && slices.Contains(r.ResourceNames, lease)
	})
}
