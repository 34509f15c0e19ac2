// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"net/http"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// The clients of metaparticle/sync send GET and PUT of /locks/NAME, and read only the status
// code. PUT answers 200 to a program that holds, and 409 to any other. GET answers 200 for a
// lock that exists, and 404 otherwise. Some of these clients crash at any other code, or at a
// body that is no JSON.

// syncGood is the least time for which an answer 200 is good. These clients send the next
// heartbeat after 10 s.
const syncGood = 12 * time.Second

// syncLock is the lock in the words of metaparticle/sync.
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

// syncLock answers the clients of metaparticle/sync.
func (a *API) syncLock(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	k := calls{a.keeper("lock", name)}
	switch {
	case r.Method == http.MethodGet && k.keeper == nil:
		answerSync(w, http.StatusNotFound, name, "", 0)
	case r.Method == http.MethodPut && k.keeper == nil:
		a.config.Log.Warn("the pod does not declare a lock that its program asks for", "lock", name)
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

// getSync answers 404 to a program that has lost its hold. The client in Rust learns of that
// loss only by GET.
func (k calls) getSync(w http.ResponseWriter, r *http.Request) {
	status, owner := http.StatusOK, ""
	_ = k.call(r.Context(), func(now time.Duration) {
		if k.syncHeld && (k.hold == nil || k.hold.good(now) < syncGood) {
			status = http.StatusNotFound
		}
		if k.hold != nil {
			owner = k.config.PodName
		}
	})
	answerSync(w, status, k.of.Name, owner, 0)
}

// putSync acquires the lock, or takes in a heartbeat.
func (k calls) putSync(w http.ResponseWriter, r *http.Request) {
	good := k.beatSync(r.Context())
	if good == 0 {
		o := k.bidFor(r.Context(), &bid{now: true, every: defaultBeats, anyProgram: true}, 0)
		if o.problem != nil {
			answerSync(w, http.StatusConflict, k.of.Name, o.problem.Holder, 0)
			return
		}
		good = time.Duration(o.answer.GoodForSeconds * float64(time.Second))
		if good < syncGood {
			// The lease duration is too short for these clients. The answer tells the program
			// that another pod holds.
			k.config.Log.Warn("lease duration is too short for heartbeats of 10 s", "lease", o.hold.slot)
			_ = k.giveBack(context.WithoutCancel(r.Context()), o.hold.number)
		}
	}
	if good < syncGood {
		answerSync(w, http.StatusConflict, k.of.Name, k.config.PodName, 0)
		return
	}
	answerSync(w, http.StatusOK, k.of.Name, k.config.PodName, good)
}

// beatSync takes in a heartbeat for a hold that a client of metaparticle/sync acquired. These
// clients have no name, so each of them in the pod counts as the same program.
func (k calls) beatSync(ctx context.Context) (good time.Duration) {
	_ = k.call(ctx, func(now time.Duration) {
		if k.hold == nil || !k.hold.bid.anyProgram || k.hold.phase(now) == lost {
			return
		}
		k.quiet = true // a heartbeat changes nothing that other calls see
		good = k.hold.good(now)
		k.hold.beat(now)
		if good < syncGood {
			k.hold.beatAt = now - k.hold.beats // the answer 409 tells the program that the hold is lost
		}
	})
	return good
}

func answerSync(w http.ResponseWriter, status int, name, owner string, good time.Duration) {
	l := syncLock{Kind: "Lock", APIVersion: api.Prefix + "v1"}
	l.Metadata.Name, l.Spec.Owner = name, owner
	if good > 0 {
		l.Spec.Expiry = time.Now().Add(good).UTC().Format(time.RFC3339Nano)
	}
	reply(w, status, l)
}
