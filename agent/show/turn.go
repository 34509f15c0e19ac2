// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import "time"

// Turn is the effect of a rollout on the readiness of a standby. The zero value has no effect.
type Turn struct {
	// NotReady reports that a rollout must not count the pod as Ready yet. Reason and Message
	// explain this to people. Ready reports that the pod stays Ready although no holder serves.
	// During the turn of a newer revision a strict controller would otherwise delete this pod.
	NotReady, Ready bool
	Reason, Message string
	// Beyond is a time in addition to [Handover]. The standby of a strict controller stays Ready
	// for the sum of both times while no holder serves.
	Beyond time.Duration
}
