// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// sight has the facts that the reads of one Lease prove. Each read is consistent: the answer is at
// least as new as the instant at which the read was sent.
type sight struct {
	// known reports that the pod has read the Lease.
	known       bool
	uid, holder string
	version     string
	renewed     time.Time
	// asked is the instant at which the last read was sent. The field "since" is the instant of the
	// first answer with the present version.
	asked, since time.Duration
	// lives reports that the holder certainly wrote the Lease. The field "wrote" is the earliest
	// possible instant of that write.
	lives bool
	wrote time.Duration
}

// next returns the sight after a read that was sent and answered at the given instants. If this
// read shows a new write, the API server stored that write after the pod had sent the previous
// read. A write by a person keeps the holder and the time of renewal, and does not count.
func (s sight) next(l *kube.Lease, sent, answered time.Duration) sight {
	n := sight{
		known: true, uid: l.UID, holder: l.Holder, version: l.ResourceVersion, renewed: l.RenewTime,
		asked: sent, since: answered, lives: s.lives, wrote: s.wrote,
	}
	if s.known && s.uid == n.uid && s.version == n.version {
		n.since = s.since
	}
	if s.uid != n.uid || s.holder != n.holder {
		n.lives = false
	}
	// Agents create no Lease. So a new UID does not come from a write of the holder.
	// A restore of etcd brings a state with an earlier renew time back, although the holder may be dead.
	wrote := s.uid == n.uid && (s.holder != n.holder || n.renewed.After(s.renewed))
	if s.known && wrote && api.IsIdentity(n.holder) {
		n.lives, n.wrote = true, s.asked
	}
	return n
}
