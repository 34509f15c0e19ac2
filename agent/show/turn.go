// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import "time"

// Turn is the effect of a rollout on a standby's readiness. The zero value has no
// effect.
type Turn struct {
	// NotReady reports that a rollout must not yet count the pod as Ready; Reason and
	// Message say why. The field Ready reports that the pod may stay Ready although no holder
	// serves. A newer revision is in its turn then, and no controller must delete this pod.
	NotReady, Ready bool
	Reason, Message string
	// Beyond is the time for which the standby stays Ready beyond a handover.
	Beyond time.Duration
}
