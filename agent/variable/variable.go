// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// Variable carries out the actions, reads and watches of this pod's programs on one Variable
// object.
type Variable struct {
	config Config
	random *rand.Rand
	calls  chan *call
	// ended is closed at the end of Run.
	ended chan struct{}
	tasks *tasks
	// writes counts the writes so far. The id of each write contains this number.
	writes int
	// known is the Variable as the last write left it; nil if the loop must read before the
	// next write.
	known *kube.Variable

	mu      sync.Mutex
	waiting int
	reads   reads
	follow  follow
}

// The type "reads" has the reads that wait. All reads that wait when a request begins get the
// answer of that request.
type reads struct {
	next    []chan Answer
	running bool
}

// New returns a Variable for the object that config names. No goroutine starts before
// [Variable.Run].
func New(config Config) *Variable {
	beside := newTasks()
	random := rand.New(config.Random) //nolint:gosec // only jitter
	return &Variable{
		config: config, tasks: beside, random: random,
		follow: follow{source: source{config}, tasks: beside, random: rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))},
		calls:  make(chan *call), ended: make(chan struct{}),
	}
}

// Name returns the name of the Variable.
func (v *Variable) Name() string { return v.config.Name }

// Answer is the outcome of an action or a read.
type Answer struct {
	// Refusal is empty if the action took effect, or if the read succeeded.
	Refusal Refusal
	// Result is the integer after an add.
	Result int64
	// State is the Variable after the action or the read. After an add, State is nil, because the
	// same write may contain later adds.
	State *kube.Variable
}

// call is one action that waits for its answer.
type call struct {
	Action
	ctx    context.Context
	until  time.Time
	answer chan Answer
	// result is the integer after an add. The integer is valid once the write is stored.
	result int64
	// conflict is the call's last write, if that write ended with a conflict, and the loop has not
	// read the Variable since; nil otherwise.
	conflict *conflict
}

// conflict is a write that the API server answered with a conflict. The write may nevertheless be
// stored, if a proxy has sent its PUT twice.
type conflict struct{ base, next *kube.Variable }

// The method "over" reports whether the program no longer waits for the answer.
func (c *call) over() bool { return c.ctx.Err() != nil || !time.Now().Before(c.until) }

// refuse answers the call. If the call's last write may be stored, the answer is [Unknown].
func (c *call) refuse(refusal Refusal) {
	if c.conflict != nil {
		refusal = Unknown
	}
	c.answer <- Answer{Refusal: refusal}
}

// Do carries out an action. Do returns after about ten seconds (the constant "patience") at
// the latest.
func (v *Variable) Do(ctx context.Context, a Action) Answer {
	if !v.enter() {
		return Answer{Refusal: TooMany}
	}
	defer v.leave()
	c := &call{Action: a, ctx: ctx, until: time.Now().Add(patience), answer: make(chan Answer, 1)}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v.calls <- c:
	case <-v.ended:
		return Answer{Refusal: Stopping}
	case <-timer.C:
		return Answer{Refusal: Unavailable}
	case <-ctx.Done():
		return Answer{Refusal: Unavailable}
	}
	select {
	case answer := <-c.answer:
		return answer
	case <-v.ended:
		select {
		case answer := <-c.answer:
			return answer
		default:
			return Answer{Refusal: Unknown}
		}
	}
}

// enter counts a call; false if too many calls wait. After each call of enter that returns
// true, the caller must call leave.
func (v *Variable) enter() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waiting >= mostCalls {
		return false
	}
	v.waiting++
	return true
}

func (v *Variable) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waiting--
}
