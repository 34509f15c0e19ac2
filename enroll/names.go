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
	// rolePrefix ends in a colon, which no name of a service account has. So no
	// Role has the name of another account's, nor of the webhook's own binding.
	rolePrefix = "metaparticle:"
	// maxRoleName is the longest name that most objects may have.
	maxRoleName = 253
	// maxKey leaves room for the prefix, and for a colon and a number of two digits.
	maxKey = maxRoleName - len(rolePrefix) - 3
)

// RoleName returns the name of the first Role of a service account, and of its
// RoleBinding.
func RoleName(account string) string { return roleName(account, 0) }

// roleName returns the name of an account's n-th Role.
func roleName(account string, n int) string {
	name := rolePrefix + roleKey(account)
	if n > 0 {
		name += ":" + strconv.Itoa(n)
	}
	return name
}

// roleKey returns what the names of an account's Roles have in common: the
// account's name, or the beginning of a long one with a colon and its hash. No
// two accounts have the same key, because no account's name has a colon.
func roleKey(account string) string {
	if len(account) <= maxKey {
		return account
	}
	sum := sha256.Sum256([]byte(account))
	hash := hex.EncodeToString(sum[:16])
	return account[:maxKey-1-len(hash)] + ":" + hash
}

// keyOf returns the key that a Role's name was made from. It is empty for a name
// that [roleName] never returns, as those of earlier versions.
func keyOf(role string) string {
	key, ok := strings.CutPrefix(role, rolePrefix)
	if !ok {
		return ""
	}
	// A hash has more than two digits, and an account's name no colon.
	if i := strings.LastIndexByte(key, ':'); i >= 0 && len(key)-i <= 3 {
		return key[:i]
	}
	return key
}
