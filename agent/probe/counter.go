// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import "github.com/metaparticle-io/metaparticle/api"

// counter counts equal outcomes in a row. As in the kubelet, an outcome has an effect only at its
// threshold.
type counter struct {
	last Outcome
	run  int
}

// count counts an outcome, and returns that outcome once its threshold is reached. Below the
// threshold, count returns Unknown.
func (c *counter) count(o Outcome, p *api.Probe) Outcome {
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
