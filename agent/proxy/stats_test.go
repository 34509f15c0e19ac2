// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

// Stats are numbers of connections.
type Stats struct {
	// Waiting is the number of connections that wait for a target. Open is the number of connections
	// that have a target.
	Waiting, Open int64
	// Forwarded counts the connections that got a target. Abandoned counts the connections that
	// ended without a target. Both counts begin with the call of New.
	Forwarded, Abandoned int64
}

// Stats returns the current counts.
func (f *Forwarder) Stats() Stats {
	return Stats{
		Waiting: f.waits.Load(), Open: f.open.Load(),
		Forwarded: f.forwarded.Load(), Abandoned: f.abandoned.Load(),
	}
}
