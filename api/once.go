// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
)

// OnceAnnotation is the key of the annotation for once claims.
const OnceAnnotation = Prefix + "once"

const oncePrefix = "once."

// revisionPrefix begins the names of the Leases of once claims without a name. No claim with a name
// has a Lease with this prefix.
const revisionPrefix = "once-revision."

// maxOnce bounds the name of a once claim, and leaves room for the prefix of the Lease's
// name.
const maxOnce = maxName - len(oncePrefix)

// Once claims one slot. The pods run a container under that slot, one after another, until
// the container succeeds. The Lease then records the key, and no other pod repeats the work
// of that key. Pods of the whole namespace compete for the slot of a claim with a name. Only pods
// of one workload compete for the slot of a claim without a name.
var Once = &Kind{
	Key: OnceAnnotation, Ask: OnceAnnotation, Scope: ScopeNamespace, UntilSuccess: true, Sole: true, Awaited: true,
	parse:  parseOnce,
	slots:  onceSlots,
	isSlot: IsOnceSlot,
}

// OnceLease returns the name of the Lease of a once claim. All keys of one name share the
// Lease, so the work of two keys never runs at once.
func OnceLease(name string) string { return oncePrefix + name }

// revisionLease returns the name of the Lease for a workload's once claim, if that claim has no
// name.
func revisionLease(of Workload) string {
	return shortName(revisionPrefix + of.kindPart() + "." + of.Name)
}

func parseOnce(value string) ([]Claim, string) {
	name, key, keyed := strings.Cut(strings.TrimSpace(value), "=")
	switch {
	case value == "true":
		return []Claim{{Size: 1}}, ""
	case value == "false":
		return nil, ""
	case strings.Contains(value, ","):
		return nil, "write one name=key: a pod can have no other once claim"
	case !keyed:
		return nil, `write "true", "false", or a name and the key of the work that is to run once, as in schema=7`
	case !isOnce(name):
		return nil, fmt.Sprintf("a name before the = is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxOnce)
	case !IsKey(key):
		return nil, fmt.Sprintf("a key after the = is at most %d letters, digits, dashes, dots and underscores, with a letter or digit at both ends", maxLabel)
	}
	return []Claim{{Name: name, Size: 1, Key: key}}, ""
}

func onceSlots(c Claim, of Workload) []string {
	if c.Name == "" {
		return []string{revisionLease(of)}
	}
	return []string{OnceLease(c.Name)}
}

// IsOnceSlot reports whether the text can be the name of the Lease of a once claim.
func IsOnceSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, oncePrefix)
	return ok && isOnce(name) || IsRevisionSlot(lease)
}

// IsRevisionSlot reports whether the text can be the name of the Lease of a once claim without a
// name. In a shortened name, IsRevisionSlot can judge only the part before the hash.
func IsRevisionSlot(lease string) bool {
	return strings.HasPrefix(lease, revisionPrefix) && isUnshortened(lease, isRevisionLease)
}

// isRevisionLease reports whether [revisionLease] can return the name without shortening it.
func isRevisionLease(lease string) bool {
	rest, ok := strings.CutPrefix(lease, revisionPrefix)
	return ok && isWorkload(rest)
}

// isOnce reports whether a once claim can have the name.
func isOnce(name string) bool { return len(name) <= maxOnce && isSubdomain(name) }
