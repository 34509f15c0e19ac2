// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import "time"

// Turn is the effect of a rollout on the readiness of a standby. The zero value has no effect.
type Turn struct {
	// NotReady reports that a rollout must not count the pod as Ready yet; Reason and Message
	// explain this. The field Ready reports that the pod stays Ready although no holder serves. The
	// reason is the turn of a newer revision: meanwhile, no controller may delete this pod.
	NotReady, Ready bool
	Reason, Message string
	// Beyond is how much longer than a handover the standby stays Ready.
	Beyond time.Duration
}
