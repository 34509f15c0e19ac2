// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// weather has the faults of requests while it lasts.
type weather struct {
	// lost, replyLost, late and refused are chances. The request never arrives; its answer
	// is lost; it arrives after its sender gave up; the server refuses it.
	lost, replyLost, late, refused float64
	// slow is the chance of one way taking up to a second, not milliseconds.
	slow float64
	// stall, close and mute are chances at each event of a watch. The event is delayed by
	// up to a minute; the watch ends after it; the watch stays open, but silent.
	stall, close, mute float64
	// unanswered and unstored are the faults of writes alone.
	unanswered, unstored bool
	// deaf is a Lease whose writes the server refuses; sealed is a Lease for which the
	// server refuses agents everything.
	deaf, sealed string
	// gets, puts, watches and patches (of a pod's status) are the faults of all requests of that kind
	// from agents.
	gets, puts, watches, patches fault
	// idle is the silence after which a load balancer cuts a watch; 0 means never.
	idle time.Duration
	// silent: no event of any watch arrives. farewell: none after a Lease was deleted.
	silent, farewell bool
}

var (
	fair = weather{}
	foul = weather{lost: .05, replyLost: .08, late: .05, refused: .05, slow: .1, stall: .03, close: .05, mute: .02}
)

// fault is the fault of all requests of a kind.
type fault int

const (
	sound fault = iota
	// busy is 429 with a Retry-After, forbidden 403, failing 500.
	busy
	forbidden
	failing
	// unheard requests never arrive.
	unheard
)

// faults are the faults that a row or a trouble may choose.
var faults = []fault{busy, forbidden, failing, unheard}

func (f fault) err() error {
	code := map[fault]int{busy: 429, forbidden: 403, failing: 500}[f]
	return refusals[slices.IndexFunc(refusals, func(r refusal) bool { return r.code == code })].err()
}

// broken returns the fault of requests of this kind from agents.
func (c *clientOf) broken(op string) fault {
	verb, lease, _ := strings.Cut(op, " ")
	switch f := c.w.weather; {
	case c.pod == nil:
		return sound
	case lease != "" && lease == f.sealed:
		return forbidden
	case verb == "get":
		return f.gets
	case verb == "put":
		return f.puts
	case verb == "watch":
		return f.watches
	case verb == "patch":
		return f.patches
	}
	return sound
}

type refusal struct {
	code  int
	after time.Duration
}

// refusals are errors that the server may answer to any request. An error of 500 or
// above may follow a stored write: the API server gave up waiting for etcd.
var refusals = []refusal{{429, 3 * time.Second}, {403, 0}, {500, 0}, {503, time.Second}, {504, 0}}

func (r refusal) err() error { return &kube.StatusError{Code: r.code, RetryAfter: r.after} }
