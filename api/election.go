// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "strings"

const electionPrefix = "election."

// Election claims one slot, for which pods of a namespace compete by the local API. The
// slot of a lock with the same name is a different slot.
var Election = &Kind{
	Key: LocalAnnotation, Word: "election", Ask: LocalAnnotation, Scope: ScopeNamespace,
	slots:  func(c Claim, _ Workload) []string { return []string{ElectionLease(c.Name)} },
	isSlot: isElectionSlot,
}

// ElectionLease returns the name of the Lease of an election.
func ElectionLease(name string) string { return electionPrefix + name }

// isElectionSlot reports whether the text can be the name of an election's Lease.
func isElectionSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, electionPrefix)
	return ok && len(lease) <= maxName && isSubdomain(name)
}
