// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

const (
	// rolePrefix ends in a colon, so no Role has the name of the webhook's own
	// RoleBinding, [PullSecretsRole]. With a hyphen instead, the Role of an account named
	// pull-secrets would have that name.
	rolePrefix = "metaparticle:"
	// conditionPrefix begins the names of the Roles for conditions. The name of an agent's Role never
	// begins with conditionPrefix, because rolePrefix has a colon in place of the hyphen.
	conditionPrefix = "metaparticle-after:"
	// variablePrefix begins the names of the Roles for Variables.
	variablePrefix = "metaparticle-variable:"
	// maxRoleName bounds the length of a Role's name. Kubernetes has this bound for most objects.
	maxRoleName = 253
	// maxKey bounds the length of the result of [roleKey]. A Role's name also has the prefix, and
	// may have a colon with a two-digit number.
	maxKey = maxRoleName - len(rolePrefix) - 3
)

// RoleName returns the name of the first Role of a service account, and of its
// RoleBinding.
func RoleName(account string) string { return roleName(account, 0) }

// roleName returns the name of an account's Role with the number n. The first Role has the number
// 0, and its name contains no number.
func roleName(account string, n int) string {
	name := rolePrefix + roleKey(account)
	if n > 0 {
		name += ":" + strconv.Itoa(n)
	}
	return name
}

// roleKey returns the part that the names of all Roles of an account's agents share.
func roleKey(account string) string { return shortened(account, maxKey) }

// ConditionRoleName returns the name of the Role by which a service account reads the Leases of
// its pods' conditions. The RoleBinding has the same name.
func ConditionRoleName(account string) string { return singleRoleName(conditionPrefix, account) }

// VariableRoleName returns the name of the Role by which a service account uses the Variables of its
// pods. The RoleBinding has the same name.
func VariableRoleName(account string) string { return singleRoleName(variablePrefix, account) }

func singleRoleName(prefix, account string) string {
	return prefix + shortened(account, maxRoleName-len(prefix))
}

// isSingle reports whether [ConditionRoleName] or [VariableRoleName] can return the name.
func isSingle(role string) bool {
	return strings.HasPrefix(role, conditionPrefix) || strings.HasPrefix(role, variablePrefix)
}

// shortened returns the account's name. If the name is longer than limit, the result is the name's
// beginning, a colon and the name's hash. Two accounts never share a result, because no account's
// name contains a colon.
func shortened(account string, limit int) string {
	if len(account) <= limit {
		return account
	}
	sum := sha256.Sum256([]byte(account))
	hash := hex.EncodeToString(sum[:16])
	return account[:limit-1-len(hash)] + ":" + hash
}

// keyOf returns the result of [roleKey] that a Role's name contains. For a name that [roleName]
// never makes, such as a name from an earlier version of enroll, the result is empty.
func keyOf(role string) string {
	key, ok := strings.CutPrefix(role, rolePrefix)
	if !ok {
		return ""
	}
	// A suffix of one or two characters is the Role's number. The hash of a long account name is
	// longer.
	if i := strings.LastIndexByte(key, ':'); i >= 0 && len(key)-i <= 3 {
		return key[:i]
	}
	return key
}
