// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"encoding/json"
	"slices"
)

// rights are the rules of one version of a Role, decoded.
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

// granted reports whether a Role that is bound to the account of the pods gives them
// the right.
func (s *server) granted(verb, lease string) bool {
	role := s.object("Role", RoleName).last()
	if role.raw == nil || s.object("RoleBinding", RoleName).last().raw == nil {
		return false
	}
	if s.rights.version != role.rv {
		var r struct{ Rules []rule }
		must(json.Unmarshal(role.raw, &r))
		s.rights = rights{version: role.rv, rules: r.Rules}
	}
	return slices.ContainsFunc(s.rights.rules, func(r rule) bool {
		return slices.Contains(r.Resources, "leases") && slices.Contains(r.Verbs, verb) && slices.Contains(r.ResourceNames, lease)
	})
}
