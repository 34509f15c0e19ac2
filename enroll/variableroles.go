// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"time"
)

// newVariableRoles returns the [singleRoles] that lets accounts use the Variables of their pods. Enroll creates
// a Variable once, before a Role first names the Variable. So a Variable that a person deletes is
// not created again, and the programs that use the Variable get errors. Agents have no right to
// create Variables, because RBAC cannot restrict a creation to a name.
func newVariableRoles(s store, seen *snapshot, now func() time.Time) *singleRoles {
	return &singleRoles{
		store: s, seen: seen, prefix: variablePrefix, rules: VariableRules, objects: seen.used, giving: newStint(now), taking: newStint(now),
		waits: "Variable %s waits: the pods of its service account name more than %d Variables in this namespace",
		prepare: func(ctx context.Context, name string) error {
			return createVariable(ctx, s, seen.namespace, name)
		},
	}
}
