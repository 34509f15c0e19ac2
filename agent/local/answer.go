// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// holding is the answer about a hold of the program.
type holding struct {
	Claim string `json:"claim"`
	Hold  string `json:"hold"`
	// Slot is the name of the hold's Lease. If the hold has several Leases, Slot is the name of
	// the Lease with the greatest token. FencingToken is a decimal number, which grows from hold
	// to hold.
	Slot         string `json:"slot"`
	FencingToken string `json:"fencingToken"`
	// The field As is the program's mode in a read-write lock; empty for other claims.
	As    mode  `json:"as,omitempty"`
	State phase `json:"state"`
	// GoodForSeconds is the time within which the program must get another good answer, or stop
	// its work. GoodUntil is the end of that time, in seconds of CLOCK_BOOTTIME. Both are zero
	// if the answer is not good.
	GoodForSeconds float64 `json:"goodForSeconds"`
	GoodUntil      float64 `json:"goodUntil"`
}

// newHolding returns the answer about a hold of the claim at the instant now.
func newHolding(of api.Claim, h *hold, now time.Duration) holding {
	answer := holding{Claim: of.LocalText(), Hold: h.number, Slot: h.slot, FencingToken: h.token, State: h.phase(now)}
	if of.Kind == api.RWLock {
		answer.As = h.bid.as()
	}
	if good := h.good(now); good > 0 {
		answer.GoodForSeconds, answer.GoodUntil = good.Seconds(), (now + good).Seconds()
	}
	return answer
}

// reply sends the answer as JSON.
func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // if the write fails, the program is gone
}

// lineTimeout bounds the time to write one line of a stream, or another part of an answer on a
// connection that a handler has taken. The kernel buffers many lines, so the timeout ends a
// connection only if the program has not read for long.
const lineTimeout = 10 * time.Second

// stream writes lines of JSON.
type stream struct {
	to      *http.ResponseController
	encoder *json.Encoder
}

func newStream(w http.ResponseWriter) stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	return stream{to: http.NewResponseController(w), encoder: json.NewEncoder(w)}
}

// line writes the value as one line of JSON.
func (s stream) line(of any) error {
	if err := s.encoder.Encode(of); err != nil {
		return err
	}
	return s.to.Flush()
}

// problem is an error in the format of RFC 9457. The field Reason has one of a fixed set of values.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	// Holder is the pod that has the slot; empty if the agent does not know that pod.
	Holder string `json:"holder,omitempty"`
}

func newProblem(status int, reason, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Reason: reason, Detail: detail}
}

// The problems of the local API.
var (
	stoppingProblem    = newProblem(http.StatusServiceUnavailable, "Stopping", "The pod stops, so the agent begins no hold. Stop the work, and end.")
	unavailableProblem = newProblem(http.StatusServiceUnavailable, "Unavailable",
		"The agent cannot read or write the Lease or the Variable. Check that the API server answers, and that the object exists.")
	tooManyProblem = newProblem(http.StatusTooManyRequests, "TooManyBids", "256 calls wait for this claim already. End some of them.")
	upgradeProblem = newProblem(http.StatusConflict, "NoUpgrade", "This pod reads under the lock already. Give that hold back, and then bid as the writer.")
	pausedProblem  = newProblem(http.StatusConflict, "Paused", "A person has paused the slot. Wait for the end of the pause, or use kubectl metaparticle resume.")
	closedProblem  = newProblem(http.StatusConflict, "Closed",
		"The barrier is not open: too few pods of the Job wait, or the API server does not answer. Wait with ?wait=1m, and repeat the call.")
	lostProblem = newProblem(http.StatusGone, "Lost", "The pod does not have that hold. Stop the work, and bid again.")
	hostProblem = newProblem(http.StatusForbidden, "ForeignHost",
		"The Host header does not name this machine, or a web page sent the call. Use localhost, 127.0.0.1 or [::1], and no Origin.")
	wildProblem = newProblem(http.StatusNotFound, "NoSuchPath",
		"Use one of the paths /v1/holds, /v1/KIND/NAME, /v1/KIND/NAME/holds, /v1/KIND/NAME/holds/HOLD, /v1/variable/NAME, /v1/variable/NAME/add, /v1/barrier/NAME, /v1/barrier/NAME/wait and /locks/NAME.")
)

// The problems of Variables.
var (
	unknownProblem  = newProblem(http.StatusGatewayTimeout, "Unknown", "The write had no answer, and may have been stored. Read the variable, or repeat an add with the same Idempotency-Key.")
	mismatchProblem = newProblem(http.StatusPreconditionFailed, "Mismatch", "The variable has another version, or has a value already. Read it again.")
	typeProblem     = newProblem(http.StatusConflict, "WrongType", "The variable has the other type, which never changes. Use another variable.")
	overflowProblem = newProblem(http.StatusConflict, "Overflow", "The sum does not fit into 64 bits, and the variable stays as it was. Add a smaller number, or use another variable.")
	reusedProblem   = newProblem(http.StatusUnprocessableEntity, "KeyReused", "The Idempotency-Key belongs to an add of another number. Use a new key for each add.")
	fencedProblem   = newProblem(http.StatusConflict, "Fenced",
		"The fence of the variable refuses the write: a later hold has written, or another lock protects it. Stop the work, or name a hold of that lock with ?fence=HOLD.")
	uncertainProblem = newProblem(http.StatusConflict, "Uncertain", "The machine may have been paused. Write again once the state of the hold is held.")
	callsProblem     = newProblem(http.StatusTooManyRequests, "TooManyCalls", "256 calls wait for this variable already. End some of them.")
)

// problemOf returns the problem for a refusal of an action on a Variable.
func problemOf(refusal Refusal) *problem {
	switch refusal {
	case Unknown:
		return unknownProblem
	case Mismatch:
		return mismatchProblem
	case WrongType:
		return typeProblem
	case Overflow:
		return overflowProblem
	case KeyReused:
		return reusedProblem
	case Fenced:
		return fencedProblem
	case LostHold:
		return lostProblem
	case UncertainHold:
		return uncertainProblem
	case TooMany:
		return callsProblem
	case Stopping:
		return stoppingProblem
	case Unavailable, Absent:
	}
	return unavailableProblem
}

func busyProblem(holder string) *problem {
	p := newProblem(http.StatusConflict, "Busy", "Another pod, or another call, holds the slot. Wait with ?wait=30s.")
	p.Holder = holder
	return p
}

func undeclaredProblem(word, name string) *problem {
	return newProblem(http.StatusNotFound, "NotDeclared",
		"The pod does not declare "+word+"/"+name+". Add it to the annotation metaparticle.io/api of the pod template.")
}

func usageProblem(detail string) *problem {
	return newProblem(http.StatusBadRequest, "BadRequest", detail)
}

// write sends the problem as the answer.
func (p *problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // if the write fails, the program is gone
}

// followHold streams the state of a hold to the program that already has the hold.
func followHold(k calls, w http.ResponseWriter, r *http.Request) {
	has, err := k.attach(r.Context(), r.PathValue("hold"))
	switch {
	case errors.Is(err, errEnded):
		stoppingProblem.write(w)
	case err != nil:
		unavailableProblem.write(w) // the program has closed at least its half of the connection
	case has == nil:
		lostProblem.write(w)
	default:
		takeOver(w, r, func(ctx context.Context, w http.ResponseWriter) { k.follow(ctx, w, has) })
	}
}

// follow writes a line at each change of the hold, until the hold or the connection ends. While
// the connection is open, the program counts as living.
func (k calls) follow(ctx context.Context, w http.ResponseWriter, h *hold) {
	defer k.detach(h)
	lines := newStream(w)
	var told holding
	for {
		line, changed, ok := k.lineOf(ctx, h)
		if !ok {
			return
		}
		if line.State != told.State || line.GoodUntil > told.GoodUntil || line.State == lost {
			if lines.line(line) != nil || line.State == lost {
				return
			}
		}
		told = line
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-k.ended:
			return
		}
	}
}

// lineOf returns the line about a hold, and the channel that is closed at the next change. The
// result "ok" is false if ctx or the loop ends first.
func (k calls) lineOf(ctx context.Context, h *hold) (line holding, changed <-chan struct{}, ok bool) {
	err := k.call(ctx, func(now time.Duration) {
		k.quiet = true
		line, changed = newHolding(k.of, h, now), k.changed
	})
	return line, changed, err == nil
}
