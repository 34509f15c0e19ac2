// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// sight is what reads of one Lease prove. Each read is consistent: its answer is not older than
// its sending.
type sight struct {
	// known reports that the Lease was read.
	known       bool
	uid, holder string
	version     string
	renewed     time.Time
	// asked is the instant at which the last read was sent. The field since is the instant of the
	// first answer with the present version.
	asked, since time.Duration
	// lives reports that the holder has written the Lease after the instant wrote.
	lives bool
	wrote time.Duration
}

// next returns the sight after a read that was sent at an instant, and answered at another one.
// A state that the read before did not show is no older than the sending of that read. A person
// may also write a Lease, and keeps the holder and its time of renewal.
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
	// Agents create no Lease. So a Lease that was made again shows no write of its holder.
	wrote := s.uid == n.uid && (s.holder != n.holder || !s.renewed.Equal(n.renewed))
	if s.known && wrote && api.IsIdentity(n.holder) {
		n.lives, n.wrote = true, s.asked
	}
	return n
}
