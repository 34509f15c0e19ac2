// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// Weather is the set of faults to which requests are subject at an instant.
type Weather struct {
	// lost, replyLost, late and refused are chances of faults. A lost request never
	// arrives, and a late request may arrive after its sender gave up. The server refuses a
	// refused request. With replyLost the request arrives, but its answer never does.
	lost, replyLost, late, refused float64
	// repeated is the chance that a proxy sends the PUT of a Variable twice. The client then gets the
	// answer to the second PUT.
	repeated float64
	// Slow is the chance that a packet takes up to a second, not milliseconds.
	Slow float64
	// stall, close and mute are chances at each event of a watch. A stall delays the event
	// by up to a minute, or by up to [Network.Latest] if that is longer. A close ends the watch
	// after the event. A mute watch stays open, but silent.
	stall, close, mute float64
	// odd, doubled and garbled are chances of faults that proxies and broken servers cause. These
	// faults reach only agents and pods that wait. An odd answer is one of [oddities]. A
	// doubled PUT of a Lease arrives twice, and its sender gets the second answer. A garbled answer
	// cannot be decoded, although the request took effect.
	odd, doubled, garbled float64
	// twice and expired are chances at each event of a watch. The event comes twice, or the watch
	// ends with 410 after the event.
	twice, expired float64
	// behind is the chance that a watch without a resourceVersion begins with an old state. With the
	// chance in the field "forgotten", the server answers 410 to a watch with a resourceVersion.
	behind, forgotten float64
	// Unanswered reports that the answers to all PUT requests are lost, and that no other request
	// arrives. The field Unstored reports that each write of a Lease or Variable is lost if
	// the server would store it. A write that the server would refuse still arrives.
	Unanswered, Unstored bool
	// Deaf is the name of a Lease for which the server refuses all writes. The field Sealed is
	// the name of a Lease for which the server refuses all requests of agents and of pods that
	// wait.
	Deaf, Sealed string
	// Gets is the fault of all GET requests from agents and from pods that wait. The fields Puts,
	// Watches and Patches are the faults of their other requests. Agents patch only the status of
	// their pods.
	Gets, Puts, Watches, Patches Fault
	// Idle is the silence after which a load balancer cuts a watch; 0 means never.
	Idle time.Duration
	// Silent reports that the next change of any Lease makes all open watches mute. The field
	// Farewell reports that a watch becomes mute after the deletion of its Lease.
	Silent, Farewell bool
}

// String returns all fields as text, for the history.
func (f Weather) String() string {
	return fmt.Sprintf("{lost:%v replyLost:%v late:%v refused:%v repeated:%v slow:%v stall:%v close:%v mute:%v"+
		" odd:%v doubled:%v garbled:%v twice:%v expired:%v behind:%v forgotten:%v unanswered:%v unstored:%v deaf:%v sealed:%v gets:%v puts:%v watches:%v patches:%v idle:%d silent:%v farewell:%v}",
		f.lost, f.replyLost, f.late, f.refused, f.repeated, f.Slow, f.stall, f.close, f.mute,
		f.odd, f.doubled, f.garbled, f.twice, f.expired, f.behind, f.forgotten,
		f.Unanswered, f.Unstored, f.Deaf, f.Sealed, f.Gets, f.Puts, f.Watches, f.Patches, f.Idle, f.Silent, f.Farewell)
}

var (
	// Fair is the weather without faults.
	Fair = Weather{}
	// Foul is the weather in which some requests of each kind fail.
	Foul = Weather{lost: .05, replyLost: .08, late: .05, refused: .05, repeated: .1, Slow: .1, stall: .03, close: .05, mute: .02}
	// Strange is the weather in which proxies and broken servers cause faults.
	Strange = Weather{odd: .08, doubled: .1, garbled: .06, twice: .2, expired: .05, behind: .5, forgotten: .3, Slow: .1}
)

// Fault is the way in which all requests of one kind fail. The zero value, sound, means that the
// requests work.
type Fault int

const (
	sound Fault = iota
	// Busy means that the server answers 429 with a Retry-After.
	Busy
	// Forbidden means that the server answers 403.
	Forbidden
	// Failing means that the server answers 500.
	Failing
	// Unheard means that the request never arrives.
	Unheard
	// Unauthorized means that the server answers 401.
	Unauthorized
	// Misrouted means that a proxy answers 404, although the object exists.
	Misrouted
	// TooLarge means that a proxy answers 413.
	TooLarge
	// Invalid means that the server answers 422.
	Invalid
	// Redirected means that a proxy answers 302.
	Redirected
	// Empty means that a proxy answers each watch with the status 200 and an empty body. The fault has
	// no effect on other requests.
	Empty
)

// Faults lists the ways to fail, from which the stories draw.
var Faults = []Fault{Busy, Forbidden, Failing, Unheard}

// StrangeFaults lists the ways to fail that proxies and broken servers cause.
var StrangeFaults = []Fault{Unauthorized, Misrouted, TooLarge, Invalid, Redirected}

func (f Fault) err() error {
	code := map[Fault]int{
		Busy: 429, Forbidden: 403, Failing: 500,
		Unauthorized: 401, Misrouted: 404, TooLarge: 413, Invalid: 422, Redirected: 302,
	}[f]
	all := slices.Concat(refusals, oddities)
	return all[slices.IndexFunc(all, func(r refusal) bool { return r.code == code })].err()
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

// oddities has answers that a proxy or a broken server may give to any request. The request then has
// no effect.
var oddities = []refusal{
	{302, 0}, {400, 0}, {401, 0}, {404, 0}, {405, 0}, {408, 0}, {410, 0}, {413, 0}, {422, 0}, {429, time.Hour},
}

func (r refusal) err() error { return &kube.StatusError{Code: r.code, RetryAfter: r.after} }
