// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import "github.com/metaparticle-io/metaparticle/api"

// counter counts equal results in a row. As in the kubelet, the state changes only
// when a threshold is reached.
type counter struct {
	last Outcome
	run  int
}

// note counts a result. note returns the new state, or Unknown if the state stays
// the same.
func (c *counter) note(o Outcome, p *api.Probe) Outcome {
	if o == Unknown {
		return Unknown
	}
	if c.last == o {
		c.run++
	} else {
		c.last, c.run = o, 1
	}
	threshold := p.SuccessThreshold
	if o == Failure {
		threshold = p.FailureThreshold
	}
	if c.run < threshold {
		return Unknown
	}
	return o
}
