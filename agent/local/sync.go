// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/api"
)

// The clients of metaparticle/sync send GET and PUT of /locks/NAME, and read only the status code.
// PUT is answered with 200 if the program holds, and with 409 if not. Some of these clients crash at
// any other code, or at a body that is not JSON.

// syncGood is the least time for which an answer 200 must be good. The clients of
// metaparticle/sync send the next heartbeat after 10 s.
const syncGood = 12 * time.Second

// syncLock is a lock in the format of metaparticle/sync.
type syncLock struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Owner  string `json:"owner"`
		Expiry string `json:"expiry"`
	} `json:"spec"`
}

// syncLock answers a GET or PUT of a client of metaparticle/sync.
func (a *API) syncLock(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	k := calls{a.keeper("lock", name)}
	switch {
	case r.Method == http.MethodGet && k.keeper == nil:
		answerSync(w, http.StatusNotFound, name, "", 0)
	case r.Method == http.MethodPut && k.keeper == nil:
		a.config.Log.Debug("the pod does not declare a lock that its program asks for", "lock", name)
		answerSync(w, http.StatusConflict, name, "", 0)
	case r.Method == http.MethodGet:
		k.getSync(w, r)
	case r.Method == http.MethodPut:
		k.putSync(w, r)
	default:
		w.Header().Set("Allow", "GET, PUT")
		newProblem(http.StatusMethodNotAllowed, "BadRequest", "Use GET or PUT.").write(w)
	}
}

// getSync answers with 404 for a while after the loss of a hold ([synced]), and otherwise with 200. A
// hold that is good for less than [syncGood] counts as lost. But while a present hold waits only for a
// renewal, getSync waits, too. The hold of a program with another protocol says nothing about an earlier
// hold of these clients.
func (k calls) getSync(w http.ResponseWriter, r *http.Request) {
	recall(r.Context(), k)
	status, owner := http.StatusOK, ""
	err := renewed(r.Context(), k, func(now time.Duration, waits bool) (again bool) {
		k.quiet = true
		k.tie(true)
		h := k.hold
		held := h != nil && !h.owed && h.bid.anyProgram
		switch {
		case held && h.unrenewed && waits:
			return true
		case held && h.good(now) >= syncGood:
			k.synced.toldAt = 0
		case k.synced.lost(now):
			status = http.StatusNotFound
		}
		if h != nil {
			owner = k.config.PodName
		}
		return false
	})
	if err != nil {
		status = http.StatusNotFound // the agent stops, or nothing is known about the hold
	}
	answerSync(w, status, k.of.Name, owner, 0)
}

// recall looks at the Lease at each GET, until this process has seen the Lease. While the Lease may
// name a hold of this process, recall does nothing. If the Lease names the pod, an earlier agent
// process may have told a client of the hold. This process never resumes that hold, so the client
// must learn that the lock is lost. The same applies if the API server does not answer.
func recall(ctx context.Context, k calls) {
	known := false
	_ = k.call(ctx, func(time.Duration) { known = k.synced.known || k.claim.Owns() })
	if known {
		return
	}
	looking, cancel := context.WithTimeout(ctx, k.patience())
	defer cancel()
	_, seen := k.seen(looking)
	_ = k.call(ctx, func(time.Duration) {
		k.synced.known = seen
		k.synced.held = k.synced.held || !seen || slices.ContainsFunc(k.claim.Views(), func(v elector.View) bool {
			return v.Mine && k.claim.Own(v.Record.Hold) == nil
		})
	})
}

// putSync acquires the lock. If a client of metaparticle/sync in this pod already holds the lock,
// putSync remembers a heartbeat.
func (k calls) putSync(w http.ResponseWriter, r *http.Request) {
	good := k.beatSync(r.Context())
	if good == 0 {
		o := k.bidFor(r.Context(), &bid{now: true, every: defaultBeats, anyProgram: true}, 0)
		if o.problem != nil {
			refuseSync(r.Context(), k)
			answerSync(w, http.StatusConflict, k.of.Name, o.problem.Holder, 0)
			return
		}
		good = time.Duration(o.answer.GoodForSeconds * float64(time.Second))
		switch {
		case r.Context().Err() != nil:
			good = 0 // the program never learns of the hold (see answerBid)
			retract(k, o.hold)
		case good < syncGood:
			// The lease duration is too short for these clients. The program gets the status 409,
			// as if another pod held the lock.
			k.config.Log.Debug("lease duration is too short for heartbeats of 10 s", "lease", o.hold.slot)
			retract(k, o.hold)
		}
	}
	if good < syncGood {
		refuseSync(r.Context(), k)
		answerSync(w, http.StatusConflict, k.of.Name, k.config.PodName, 0)
		return
	}
	answerSync(w, http.StatusOK, k.of.Name, k.config.PodName, good)
}

// retract ends a hold of which the call cannot, or must not, tell its program. If another call has
// told the program of that hold meanwhile, the hold continues.
func retract(k calls, h *hold) {
	_ = k.call(context.Background(), func(time.Duration) {
		if k.hold == h && !h.told {
			h.returned = true
		}
	})
}

// refuseSync remembers that a PUT gets the answer 409.
func refuseSync(ctx context.Context, k calls) {
	_ = k.call(ctx, func(time.Duration) {
		k.quiet = true
		k.synced.refused()
	})
}

// beatSync remembers a heartbeat for a hold that a client of metaparticle/sync acquired, and returns
// for how long that hold is good. These clients send no name, so all of them in the pod count as
// one program.
func (k calls) beatSync(ctx context.Context) (good time.Duration) {
	_ = renewed(ctx, k, func(now time.Duration, waits bool) (again bool) {
		h := k.hold
		if h == nil || h.owed || !h.bid.anyProgram || h.phase(now) == lost {
			return false
		}
		k.quiet = true // a heartbeat does not change the answers to other calls
		h.beat(now)
		k.tie(true)
		if h.unrenewed && waits {
			return true
		}
		if good = h.good(now); good < syncGood {
			// The status 409 will tell the program that its hold is lost. So the agent stops
			// the renewals, as if no heartbeat had come in time.
			h.beatAt = now - h.beats
		}
		return false
	})
	return good
}

// renewed makes the loop call f. If the result of f is true, renewed repeats that call after the next
// change. The argument "waits" of f reports that f may wait for a renewal. Only a pod with a leash waits
// so, and for at most [calls.patience]. If the result of renewed is an error, f had no last call.
func renewed(ctx context.Context, k calls, f func(now time.Duration, waits bool) (again bool)) error {
	patience := time.NewTimer(k.patience())
	defer patience.Stop()
	for waits := k.config.Leash != nil; ; {
		var changed <-chan struct{}
		err := k.call(ctx, func(now time.Duration) {
			if f(now, waits) {
				changed = k.changed
			}
		})
		if err != nil || changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-patience.C:
			waits = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func answerSync(w http.ResponseWriter, status int, name, owner string, good time.Duration) {
	l := syncLock{Kind: "Lock", APIVersion: api.Prefix + "v1"}
	l.Metadata.Name, l.Spec.Owner = name, owner
	if good > 0 {
		l.Spec.Expiry = time.Now().Add(good).UTC().Format(time.RFC3339Nano)
	}
	reply(w, status, l)
}

// synced decides how a GET of metaparticle/sync is answered after a loss of the keeper's lock.
//
// The client in Rust learns of a loss only by GET: the client ignores the answer to the PUT of a
// heartbeat. But while this client waits for the lock, the client sends no PUT before a GET has the
// answer 200. So the answer 404 must come after each loss, and must not last for ever.
type synced struct {
	// known reports that this process has seen the Lease. The field "held" reports that a client
	// may have got a hold, from this process or from an earlier one.
	known, held bool
	// toldAt is the instant of the first answer 404 since the loss; zero for none.
	toldAt time.Duration
}

// syncTells is the time for which a GET gets the answer 404 after a loss. Within this time each
// client sends two heartbeats.
const syncTells = 2 * syncGood

// holds remembers that a client has a good hold.
func (s *synced) holds() { s.held, s.toldAt = true, 0 }

// refused remembers that a PUT gets the answer 409. If the client ignores this answer, the client must
// learn of the loss by its next GET.
func (s *synced) refused() { s.toldAt = 0 }

// lost reports whether a GET without a good hold gets the answer 404.
func (s *synced) lost(now time.Duration) bool {
	if s.held && s.toldAt == 0 {
		s.toldAt = now
	}
	return s.held && now < s.toldAt+syncTells
}
