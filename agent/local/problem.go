// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"encoding/json"
	"net/http"

	"github.com/metaparticle-io/metaparticle/agent/variable"
)

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
func problemOf(refusal variable.Refusal) *problem {
	switch refusal {
	case variable.Unknown:
		return unknownProblem
	case variable.Mismatch:
		return mismatchProblem
	case variable.WrongType:
		return typeProblem
	case variable.Overflow:
		return overflowProblem
	case variable.KeyReused:
		return reusedProblem
	case variable.Fenced:
		return fencedProblem
	case variable.LostHold:
		return lostProblem
	case variable.UncertainHold:
		return uncertainProblem
	case variable.TooMany:
		return callsProblem
	case variable.Stopping:
		return stoppingProblem
	case variable.Unavailable, variable.Absent:
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
