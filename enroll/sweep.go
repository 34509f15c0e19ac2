// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
)

// right is a Role's right on a Lease; without a Role, the Lease itself and every
// right on it.
type right struct{ lease, role string }

// sighting is a right that nobody asks for, as it was when this process first
// saw it like that.
type sighting struct {
	// uid and version are empty for a Role's right, and for a Lease that is gone
	// while a Role still names it: its holder may be alive all the same.
	uid     types.UID
	version string
	since   time.Time
}

// due is what nobody has asked for in a whole duration.
type due struct {
	// leases are to be deleted, with all rights on them.
	leases map[string]bool
	// rights are to be withdrawn: others claim the Lease, the Role's account not.
	rights map[right]bool
}

// sweep deletes what nobody asks for and a whole duration has not changed:
// whoever held it must have stopped by then. It returns when to look again.
//
// A Lease that others claim is not deleted, but the accounts that claim it no
// longer lose their right on it after the same time: an agent of theirs that no
// pod stands for could not have renewed since.
func (r *Reconciler) sweep(ctx context.Context, l *look) (time.Duration, error) {
	now := r.now()
	unasked := l.unasked()
	seen := r.seen(l.namespace, unasked, now)
	overdue := due{leases: map[string]bool{}, rights: map[right]bool{}}
	var again time.Duration
	for of, s := range seen {
		left := l.patience(of.lease) - now.Sub(s.since)
		switch {
		case left > 0 && (again == 0 || left < again):
			again = left
		case left > 0:
		case of.role == "":
			overdue.leases[of.lease] = true
		default:
			overdue.rights[of] = true
		}
	}
	if len(overdue.leases)+len(overdue.rights) == 0 {
		return again, nil
	}
	done, err := r.remove(ctx, l, overdue)
	r.unsee(l.namespace, done)
	return again, err
}

// unasked are the Leases that nobody claims, gone ones too, and the rights of
// accounts that claim a Lease no longer which others do.
func (l *look) unasked() map[right]*coordinationv1.Lease {
	unasked := map[right]*coordinationv1.Lease{}
	for name, lease := range l.leases {
		if l.wanted[name] == nil {
			unasked[right{lease: name}] = lease
		}
	}
	for _, known := range l.ledgers.all {
		for name := range known.memories {
			c := l.wanted[name]
			switch {
			case c == nil:
				unasked[right{lease: name}] = l.leases[name]
			case c.accounts[known.key] == "":
				unasked[right{lease: name, role: known.role.Name}] = nil
			}
		}
	}
	return unasked
}

// patience is for how long a Lease must be as it is before it is swept: nobody can
// have held it for longer without a sign.
func (l *look) patience(name string) time.Duration {
	d := l.ledgers.duration(name)
	if lease := l.leases[name]; lease != nil {
		d = max(d, time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0))*time.Second)
	}
	if d == 0 {
		return api.DefaultLeaseDuration
	}
	return d
}

// seen notes what nobody asks for, forgets what was asked for again, and returns
// since when each is as it is.
func (r *Reconciler) seen(namespace string, unasked map[right]*coordinationv1.Lease, now time.Time) map[right]sighting {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.sightings[namespace]
	seen := make(map[right]sighting, len(unasked))
	for of, lease := range unasked {
		s := sighting{since: now}
		if lease != nil {
			s.uid, s.version = lease.UID, lease.ResourceVersion
		}
		if b, ok := before[of]; ok && b.uid == s.uid && b.version == s.version {
			s = b
		}
		seen[of] = s
	}
	if r.sightings == nil {
		r.sightings = map[string]map[right]sighting{}
	}
	if len(seen) > 0 {
		r.sightings[namespace] = seen
	} else {
		delete(r.sightings, namespace)
	}
	return seen
}

// unsee makes what was swept, or is asked for after all, be looked at anew.
func (r *Reconciler) unsee(namespace string, done []right) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range done {
		delete(r.sightings[namespace], of)
	}
}

// forget drops all that is remembered of a namespace that is gone.
func (r *Reconciler) forget(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sightings, namespace)
	r.notGated.forget(namespace)
	r.tooMany.forget(namespace)
}
