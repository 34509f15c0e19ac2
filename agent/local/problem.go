// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"encoding/json"
	"net/http"
)

// problem is an error, as RFC 9457 has it. The field Reason is one of a closed set.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	// Holder is the pod that has the slot, if the agent knows that pod.
	Holder string `json:"holder,omitempty"`
}

func newProblem(status int, reason, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Reason: reason, Detail: detail}
}

// The problems of the local API.
var (
	stoppingProblem    = newProblem(http.StatusServiceUnavailable, "Stopping", "The pod stops, so the agent begins no hold.")
	unavailableProblem = newProblem(http.StatusServiceUnavailable, "Unavailable",
		"The agent cannot read or write the Lease. Check that the API server answers, and that the Lease exists.")
	tooManyProblem = newProblem(http.StatusTooManyRequests, "TooManyBids", "256 calls wait for this claim already. End some of them.")
	pausedProblem  = newProblem(http.StatusConflict, "Paused", "A person has paused the slot. Wait for the end of the pause, or use kubectl metaparticle resume.")
	lostProblem    = newProblem(http.StatusGone, "Lost", "The pod does not have that hold. Stop the work, and bid again.")
	hostProblem    = newProblem(http.StatusForbidden, "ForeignHost",
		"The Host header does not name this machine, or a web page sent the call. Use localhost, 127.0.0.1 or [::1], and no Origin.")
	wildProblem = newProblem(http.StatusNotFound, "NoSuchPath",
		"The local API has the paths /v1/KIND/NAME, /v1/KIND/NAME/holds, /v1/KIND/NAME/holds/HOLD and /locks/NAME.")
)

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
	_ = json.NewEncoder(w).Encode(p) // the program is gone if this fails
}
