// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

// Turn is the decision by the order of revisions about a standby. The zero value
// decides nothing.
type Turn struct {
	// NotReady: a rollout must not count the pod, for the reason. Ready: a controller must
	// not delete the pod as long as a newer revision is in its turn.
	NotReady, Ready bool
	Reason, Message string
}
