// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// weather is what happens to requests while it lasts.
type weather struct {
	// lost, replyLost, late, refused are the chances of a request: it never
	// arrives; it does, its answer does not; it arrives when its sender has
	// long given up; it is answered with an error.
	lost, replyLost, late, refused float64
	// slow is the chance of one way taking up to a second, not milliseconds.
	slow float64
	// stall, close and mute are the chances, for each event of a watch, of its being
	// held up for up to a minute, of the watch ending after it, and of the watch being
	// silent for ever after it, though it is open.
	stall, close, mute float64
	// unanswered and unstored: what is wrong with writes alone.
	unanswered, unstored bool
	// deaf is a Lease of which writes are refused; sealed is one of which everything
	// is, for agents.
	deaf, sealed string
	// gets, puts, watches and patches (of a pod's status): what is wrong with all of an agent's requests of that
	// kind.
	gets, puts, watches, patches fault
	// idle: a load balancer cuts each watch that was silent for so long; 0: none does.
	idle time.Duration
	// silent: no event of any watch arrives. farewell: none after a Lease was deleted.
	silent, farewell bool
}

var (
	fair = weather{}
	foul = weather{lost: .05, replyLost: .08, late: .05, refused: .05, slow: .1, stall: .03, close: .05, mute: .02}
)

// fault is what is wrong with all requests of a kind.
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

func (f fault) err() error {
	code := map[fault]int{busy: 429, forbidden: 403, failing: 500}[f]
	return refusals[slices.IndexFunc(refusals, func(r refusal) bool { return r.code == code })].err()
}

// broken is what is wrong with requests of this kind, if an agent sends them.
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

// refusals are answers that the server may give to anything. One of 500 and
// above may come after the effect: the API server gave up waiting for etcd.
var refusals = []refusal{{429, 3 * time.Second}, {403, 0}, {500, 0}, {503, time.Second}, {504, 0}}

func (r refusal) err() error { return &kube.StatusError{Code: r.code, RetryAfter: r.after} }
