// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// weather is the set of faults to which requests are subject at an instant.
type weather struct {
	// lost, replyLost, late and refused are chances of faults. A lost request never
	// arrives, and a late request may arrive after its sender gave up. The server refuses a
	// refused request. With replyLost the request arrives, but its answer never does.
	lost, replyLost, late, refused float64
	// slow is the chance that a packet takes up to a second, not milliseconds.
	slow float64
	// stall, close and mute are chances at each event of a watch. A stall delays the event
	// by up to a minute, or by up to [server.latest] if that is longer. A close ends the watch
	// after the event. A mute watch stays open, but silent.
	stall, close, mute float64
	// unanswered reports that the answers to all PUT requests are lost, and that no other request
	// arrives. The field "unstored" reports that the server receives no write of a Lease or
	// Variable that the server would store.
	unanswered, unstored bool
	// deaf is the name of a Lease for which the server refuses all writes. The field "sealed" is
	// the name of a Lease for which the server refuses all requests of agents and of pods that
	// wait.
	deaf, sealed string
	// gets, puts, watches and patches are faults. Each fault applies to all such requests of agents
	// and of pods that wait. Agents patch only the status of their pods.
	gets, puts, watches, patches fault
	// idle is the silence after which a load balancer cuts a watch; 0 means never.
	idle time.Duration
	// silent reports that the next change of any Lease makes all open watches mute. The field
	// "farewell" reports that a watch becomes mute after the deletion of its Lease.
	silent, farewell bool
}

// String returns all fields as text, for the history.
func (f weather) String() string {
	return fmt.Sprintf("{lost:%v replyLost:%v late:%v refused:%v slow:%v stall:%v close:%v mute:%v"+
		" unanswered:%v unstored:%v deaf:%v sealed:%v gets:%v puts:%v watches:%v patches:%v idle:%v silent:%v farewell:%v}",
		f.lost, f.replyLost, f.late, f.refused, f.slow, f.stall, f.close, f.mute,
		f.unanswered, f.unstored, f.deaf, f.sealed, f.gets, f.puts, f.watches, f.patches, f.idle, f.silent, f.farewell)
}

var (
	fair = weather{}
	foul = weather{lost: .05, replyLost: .08, late: .05, refused: .05, slow: .1, stall: .03, close: .05, mute: .02}
)

// fault is the way in which all requests of one kind fail. The zero value, sound, means that the
// requests work.
type fault int

const (
	sound fault = iota
	// The server answers 429 with a Retry-After to a busy request, 403 to a forbidden one,
	// and 500 to a failing one.
	busy
	forbidden
	failing
	// An unheard request never arrives.
	unheard
)

// faults lists the ways to fail from which [trouble] may draw. A case of the story [table] may draw
// from them, too.
var faults = []fault{busy, forbidden, failing, unheard}

func (f fault) err() error {
	code := map[fault]int{busy: 429, forbidden: 403, failing: 500}[f]
	return refusals[slices.IndexFunc(refusals, func(r refusal) bool { return r.code == code })].err()
}

// broken returns the fault that the request of an agent, or of a pod that waits, has in the
// current weather.
func (c *clientOf) broken(op string) fault {
	verb, lease, _ := strings.Cut(op, " ")
	switch f := c.server.weather; {
	case c.allowed == nil:
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

// refusal is an HTTP status, with its Retry-After.
type refusal struct {
	code  int
	after time.Duration
}

// refusals has the errors that the server may answer to any request. After a write, an
// answer of 500 or above does not mean that the write is lost. The server may have given
// up waiting for etcd.
var refusals = []refusal{{429, 3 * time.Second}, {403, 0}, {500, 0}, {503, time.Second}, {504, 0}}

func (r refusal) err() error { return &kube.StatusError{Code: r.code, RetryAfter: r.after} }
