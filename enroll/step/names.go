// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package step

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

const (
	// rolePrefix ends in a colon, so no Role has the name of the webhook's own
	// RoleBinding, metaparticle-pull-secrets. With a hyphen instead, the Role of an account named
	// pull-secrets would have that name.
	rolePrefix = "metaparticle:"
	// ConditionPrefix begins the names of the Roles for conditions. The name of an agent's Role never
	// begins with ConditionPrefix, because rolePrefix has a colon in place of the hyphen.
	ConditionPrefix = "metaparticle-after:"
	// VariablePrefix begins the names of the Roles for Variables.
	VariablePrefix = "metaparticle-variable:"
	// MaxRoleName bounds the length of a Role's name. Kubernetes has this bound for most objects.
	MaxRoleName = 253
	// maxKey bounds the length of the result of [RoleKey]. A Role's name also has the prefix, and
	// may have a colon with a two-digit number.
	maxKey = MaxRoleName - len(rolePrefix) - 3
)

// RoleName returns the name of an account's Role with the number n. The first Role has the number
// 0, and its name contains no number.
func RoleName(account string, n int) string {
	name := rolePrefix + RoleKey(account)
	if n > 0 {
		name += ":" + strconv.Itoa(n)
	}
	return name
}

// RoleKey returns the part that the names of all Roles of an account's agents share.
func RoleKey(account string) string { return shortened(account, maxKey) }

// SingleRoleName returns the name of the only Role of an account with the prefix.
func SingleRoleName(prefix, account string) string {
	return prefix + shortened(account, MaxRoleName-len(prefix))
}

// IsSingle reports whether [SingleRoleName] can return the name.
func IsSingle(role string) bool {
	return strings.HasPrefix(role, ConditionPrefix) || strings.HasPrefix(role, VariablePrefix)
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

// KeyOf returns the result of [RoleKey] that a Role's name contains. For a name that [RoleName]
// never makes, such as a name from an earlier version of enroll, the result is empty.
func KeyOf(role string) string {
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
