// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// removal is one removal of what is due from a namespace.
type removal struct {
	r   *Reconciler
	l   *look
	due due
	// live is what pods ask for, fresh are the Roles, by consistent lists.
	live  claims
	fresh *ledgers
	// gone are the Leases that are deleted, or were not there; kept those that
	// could not be deleted.
	gone, kept map[string]bool
	done       []right
	errs       []error
}

// remove deletes Leases, then their names from the Roles. It returns what is done
// with. A crash between the two leaves a name without a Lease, which makes
// newcomers wait a duration, and which a later sweep removes after one.
func (r *Reconciler) remove(ctx context.Context, l *look, d due) ([]right, error) {
	// Nothing would be lost by sweeping what a pod asks for that our cache does
	// not know yet, but that pod would wait.
	live, err := r.livePods(ctx, l.namespace)
	if err != nil {
		return nil, err
	}
	// The Roles are read before a Lease is deleted: who has made a new one since,
	// and said so in its Role, makes our write of that Role fail.
	fresh, err := r.ledgers(ctx, r.Reader, l.namespace)
	if err != nil {
		return nil, err
	}
	s := &removal{r: r, l: l, due: d, live: live, fresh: fresh, gone: map[string]bool{}, kept: map[string]bool{}}
	s.keepWhatIsAskedFor()
	keepers := s.keepers()
	for _, known := range fresh.all {
		s.role(ctx, known, keepers)
	}
	// Of these no Role knows.
	for _, name := range slices.Sorted(maps.Keys(s.due.leases)) {
		if s.lease(ctx, name) {
			s.done = append(s.done, right{lease: name})
		}
	}
	return s.done, errors.Join(s.errs...)
}

// keepWhatIsAskedFor takes what a living pod claims from what is due.
func (s *removal) keepWhatIsAskedFor() {
	for name := range s.due.leases {
		if s.live[name] != nil {
			delete(s.due.leases, name)
			s.done = append(s.done, right{lease: name})
		}
	}
	for of := range s.due.rights {
		if c := s.live[of.lease]; c != nil && c.accounts[keyOf(of.role)] != "" {
			delete(s.due.rights, of)
			s.done = append(s.done, of)
		}
	}
}

// keepers are the longest durations that the Roles of claimants remember. No other
// Role forgets a Lease that they do not remember for as long: as long as anybody
// claims a Lease, a Role names it.
func (s *removal) keepers() map[string]int32 {
	keepers := map[string]int32{}
	for _, known := range s.fresh.all {
		for name, m := range known.memories {
			if c := s.l.wanted[name]; c != nil && c.accounts[known.key] != "" {
				keepers[name] = max(keepers[name], m.Seconds)
			}
		}
	}
	return keepers
}

// role takes out of a Role what is due of it, in one write.
func (s *removal) role(ctx context.Context, known *ledger, keepers map[string]int32) {
	var done []right
	for _, name := range slices.Sorted(maps.Keys(known.memories)) {
		own := right{lease: name, role: known.role.Name}
		seconds, kept := keepers[name]
		switch {
		case s.due.leases[name] && s.lease(ctx, name):
			done = append(done, right{lease: name})
		case s.due.rights[own] && kept && seconds >= known.memories[name].Seconds:
			done = append(done, own)
		default:
			continue
		}
		delete(known.memories, name)
	}
	if len(done) == 0 {
		return
	}
	if err := s.r.rewrite(ctx, known); err != nil {
		s.errs = append(s.errs, err)
		return
	}
	s.done = append(s.done, done...)
}

// lease deletes a Lease that is due, at its first call, and is true once it is
// gone.
func (s *removal) lease(ctx context.Context, name string) bool {
	if s.gone[name] || s.kept[name] {
		return s.gone[name]
	}
	var err error
	if lease := s.l.leases[name]; lease != nil {
		err = s.r.Client.Delete(ctx, lease, unchanged(lease))
	} else {
		err = s.r.absent(ctx, types.NamespacedName{Namespace: s.l.namespace, Name: name})
	}
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("sweep lease %s: %w", name, err))
		s.kept[name] = true
		return false
	}
	s.gone[name] = true
	return true
}

// absent: a Lease that the cache does not know is not there either, or is
// somebody else's, and stays.
func (r *Reconciler) absent(ctx context.Context, key types.NamespacedName) error {
	lease, err := r.read(ctx, key.Namespace, key.Name)
	if err == nil && ours(lease) {
		return errAgain
	}
	return client.IgnoreNotFound(err)
}

// rewrite stores a Role that names less than before. A Role that names nothing is
// deleted after its binding: a Role without one gives nothing, and is found again
// by its memory.
func (r *Reconciler) rewrite(ctx context.Context, known *ledger) error {
	if len(known.memories) > 0 {
		err := known.remember()
		if err == nil {
			err = r.Client.Update(ctx, known.role)
		}
		if err != nil {
			return fmt.Errorf("revoke leases: %w", err)
		}
		return nil
	}
	if err := r.unbind(ctx, known.role.Namespace, known.role.Name); err != nil {
		return err
	}
	err := r.Client.Delete(ctx, known.role, unchanged(known.role))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete role %s: %w", known.role.Name, err)
	}
	return nil
}
