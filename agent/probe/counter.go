// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import "github.com/metaparticle-io/metaparticle/api"

// counter counts results in a row, as the kubelet does: the state changes only
// when a threshold is reached.
type counter struct {
	last Outcome
	run  int
}

// note takes a result. It says what the state is from here on, or Unknown where
// that stays what it was.
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
