// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// Variable carries out the actions, reads and watches of this pod's programs on one Variable object. A
// single loop does all writes of a Variable, so only other pods cause conflicts. A single
// write of the loop may carry out several adds.
//
// Each write is a compare-and-swap: a PUT with uid and resourceVersion. So each acknowledged
// action took effect exactly once, and all pods see the actions in the same order.
//
//   - An action whose write has no answer is not repeated, unless the Variable proves that the
//     write was not stored. Without a proof the outcome is [Unknown].
//   - A PUT without an answer is sent again with the same bytes, while the Variable still has
//     the resourceVersion that the PUT replaces. At most one of these equal PUTs is stored.
//   - Each write stores its own name in the Variable. If the Variable has that name, the write
//     was stored. While the Variable keeps the key of an add, that key also proves that the
//     write of the add was stored.
//   - After a conflict the write may be stored, because a proxy may have sent the PUT twice. So the
//     loop looks for the name or the key of the write in the state that it reads next.
//   - An add with a kept key changes nothing, and returns the result of the first add with that
//     key.
//   - A write under a hold contains the lock, epoch and token of that hold. Before each attempt,
//     the loop requests these three values from [Action.Fence], and never takes them from the
//     Variable. The fence in the Variable serves only for a comparison.
//
// The Variable keeps 64 idempotency keys of adds. If the list is full, a new key drops a key of
// the pod that has most keys in the list. So a busy pod never drops the newest key of another
// pod. Without a further rule, keys of pods that have ended would stay for ever. So a key counts
// as old after 1000 newer keys of any pods, and old keys are dropped first.
//
// A person who edits or deletes a Variable can break each of these guarantees. A hostile pod with a
// right on the Variable can record a false result for a key of another pod. If a proxy sends a PUT
// twice, and another pod writes before the loop reads, an add without a key may count twice. A key
// that the Variable no longer keeps counts as new. The order of actions of different pods is
// arbitrary.
//
// Rejected: an annotation of a Lease, or a ConfigMap, because only the schema of a custom resource
// judges every client's write; a fence that the agent takes from the Variable, by which each writer
// would seem to have the newest hold; an epoch that agents raise, because the API server would
// refuse everybody else; keys in the agent's memory, which die with it; keys in a status
// subresource, because one write must store the sum and its key.
type Variable struct {
	config variableConfig
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

// newVariable returns a Variable for the object that config names. No goroutine starts before
// [Variable.Run].
func newVariable(config variableConfig) *Variable {
	beside := newTasks()
	random := rand.New(config.Random) //nolint:gosec // only jitter
	return &Variable{
		config: config, tasks: beside, random: random,
		follow: follow{variableSource: variableSource{config}, tasks: beside, random: rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))},
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

const (
	// patience bounds the time of one call. requestTimeout bounds the time of each request to the
	// API server.
	patience       = 10 * time.Second
	requestTimeout = 3 * time.Second
	// mostCalls bounds the calls that wait for one Variable: actions, reads and watches.
	mostCalls = 256
	// mostAtOnce bounds the calls that one write carries out. Each of these calls stores at
	// most one idempotency key. A Variable keeps more keys than mostAtOnce ([api.MaxKeys]), so
	// no write drops a key that the same write has stored.
	mostAtOnce = 32
)

// Requests has the requests for Variables. agent/kube implements Requests.
type VariableAPI interface {
	// GetVariable reads a Variable consistently.
	GetVariable(ctx context.Context, name string) (*kube.Variable, error)
	// UpdateVariable replaces the Variable by v, if the Variable still has the uid and the
	// resourceVersion of v.
	UpdateVariable(ctx context.Context, v *kube.Variable) (*kube.Variable, error)
	// WatchVariable calls fn with each event until the watch ends. WatchVariable returns nil if
	// the watch ends without an error.
	WatchVariable(ctx context.Context, name, resourceVersion string, fn func(v *kube.Variable, gone bool)) error
}

// Config has the settings of a Variable. Each field must be set.
type variableConfig struct {
	Name     string
	Requests VariableAPI
	// PodUID is the uid of the agent's pod. Process identifies this process of the agent.
	PodUID, Process string
	// Random is the only source of randomness. It is used only by [newVariable] and [Variable.Run].
	Random rand.Source
	Log    *slog.Logger
}

// variableSource reads one Variable.
type variableSource struct{ variableConfig }

func (s variableSource) read(ctx context.Context) (*kube.Variable, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.Requests.GetVariable(ctx, s.Name)
}

// tasks are the goroutines of a Variable beside its loop. They end when the loop ends.
type tasks struct {
	ctx   context.Context //nolint:containedctx // the context of all tasks, which many calls share
	end   context.CancelFunc
	mu    sync.Mutex
	over  bool
	group sync.WaitGroup
}

func newTasks() *tasks {
	t := new(tasks)
	t.ctx, t.end = context.WithCancel(context.Background())
	return t
}

// start starts a task, unless the loop has ended.
func (t *tasks) start(f func(ctx context.Context)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.group.Go(func() { f(t.ctx) })
	}
}

// wait ends all tasks, and waits until they have ended.
func (t *tasks) wait() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.end()
	t.group.Wait()
}

// Get reads the Variable consistently: the answer is at least as new as the call.
func (v *Variable) Get(ctx context.Context) Answer {
	if !v.enter() {
		return Answer{Refusal: TooMany}
	}
	defer v.leave()
	answer := make(chan Answer, 1)
	v.mu.Lock()
	v.reads.next = append(v.reads.next, answer)
	begin := !v.reads.running
	v.reads.running = true
	v.mu.Unlock()
	if begin {
		v.tasks.start(v.readAll)
	}
	select {
	case a := <-answer:
		return a
	case <-ctx.Done():
		return Answer{Refusal: Unavailable}
	case <-v.ended:
		return Answer{Refusal: Stopping}
	}
}

// readAll answers the reads until no read waits.
func (v *Variable) readAll(ctx context.Context) {
	for {
		v.mu.Lock()
		waiting := v.reads.next
		v.reads.next = nil
		v.reads.running = len(waiting) > 0
		v.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		state, err := variableSource{v.config}.read(ctx)
		answer := Answer{State: state}
		if err != nil {
			v.config.Log.Debug("variable not read", "variable", v.config.Name, "err", err)
			answer.Refusal = Unavailable
			if errors.Is(err, kube.ErrNotFound) {
				answer.Refusal = Absent
			}
		}
		for _, to := range waiting {
			to <- answer
		}
	}
}

// Follow calls f with the first state, and with later states from the watch. Of several states in
// quick succession, f may get only the last one. Follow returns an empty refusal when f returns
// false, or when ctx ends. Follow returns [Stopping] when the agent stops, and [Absent] when
// somebody deletes the Variable. If too many calls wait, Follow returns [TooMany] and
// does not call f.
func (v *Variable) Follow(ctx context.Context, first *kube.Variable, f func(*kube.Variable) bool) Refusal {
	if !v.enter() {
		return TooMany
	}
	defer v.leave()
	v.follow.begin(first)
	defer v.follow.end()
	var told *kube.Variable
	for {
		state, gone, changed := v.follow.now()
		switch {
		case gone:
			return Absent
		case told == nil:
			state = first // the caller has read this state, which may be newer than the watch's state
		}
		if state != nil && later(state, told) {
			if !f(state) {
				return ""
			}
			told = state
			continue // the state may have changed meanwhile
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ""
		case <-v.ended:
			return Stopping
		}
	}
}

// These constants are the pauses between attempts. The pause after a conflict keeps the pods from
// colliding again. The pause after an error spares the API server.
const (
	shortestPause = 2 * time.Millisecond
	longestPause  = 250 * time.Millisecond
	errorPause    = 2 * time.Second
)

// Run carries out actions until stop is closed, or ctx ends. If a write is under way when stop
// is closed, Run first waits for its outcome.
func (v *Variable) Run(ctx context.Context, stop <-chan struct{}) {
	defer v.tasks.wait()
	defer close(v.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-stop:
			return
		case first := <-v.calls:
			v.answer(ctx, v.gather(first))
		}
	}
}

// gather returns the calls that one write is to carry out. The argument "first" is the first of
// them. While the last call is an add, gather appends the next waiting call, up to mostAtOnce
// calls.
func (v *Variable) gather(first *call) []*call {
	all := []*call{first}
	for all[len(all)-1].adds() && len(all) < mostAtOnce {
		select {
		case next := <-v.calls:
			all = append(all, next)
			continue
		default:
		}
		break
	}
	return all
}

// answer sends the answers to the calls. One write carries out all those calls that change the Variable.
func (v *Variable) answer(ctx context.Context, calls []*call) {
	for attempt := 0; ; attempt++ {
		if ctx.Err() != nil {
			refuse(calls, Unavailable)
			return
		}
		if calls = expire(calls, Unavailable); len(calls) == 0 {
			return
		}
		base, err := v.base(ctx)
		if err != nil {
			if errors.Is(err, kube.ErrNotFound) {
				refuse(calls, Absent)
				return
			}
			v.config.Log.Debug("variable not read", "variable", v.config.Name, "err", err)
			v.pause(ctx, attempt, errorPause)
			continue
		}
		if calls = confirm(calls, base); len(calls) == 0 {
			return
		}
		fresh := v.known == nil
		next := base.Clone()
		changing, unchanged, rest := v.try(calls, base, next)
		if !fresh && len(unchanged) > 0 {
			v.known = nil // an answer without a write must come from a fresh read
			continue
		}
		for _, c := range calls { // the answers keep the order of the calls, so that a simulation can be replayed
			if answer, ok := unchanged[c]; ok {
				c.answer <- answer
			}
		}
		if len(changing) == 0 {
			// The result "rest" has only calls that come after a changing call. So "rest" is
			// empty, too, and all calls are answered.
			return
		}
		v.writes++
		next.Write = v.config.PodUID + "." + v.config.Process + "." + strconv.Itoa(v.writes)
		open, refused := v.write(ctx, changing, base, next)
		calls = slices.Concat(open, rest)
		switch {
		case len(open) == 0:
			attempt = -1
		case refused:
			v.pause(ctx, attempt+5, errorPause)
		default:
			v.pause(ctx, attempt, longestPause)
		}
	}
}

// base returns the state that the next write replaces.
func (v *Variable) base(ctx context.Context) (*kube.Variable, error) {
	if v.known != nil {
		return v.known, nil
	}
	return variableSource{v.config}.read(ctx)
}

// try applies the actions of the calls, one after the other, to the argument "next", a copy of the
// stored state "base". The result "changing" has the calls that change this state. The result
// "unchanged" has answers to calls that change nothing. Such an answer must not depend on a write that
// is not stored yet. So a call that changes nothing, but comes after a call in "changing", is in the
// result "rest" instead. The same holds for a call whose key base has, because the earlier calls may
// have dropped that key. The policy on Variables refuses a write that replaces the record of a key.
func (v *Variable) try(calls []*call, base, next *kube.Variable) (changing []*call, unchanged map[*call]Answer, rest []*call) {
	unchanged = map[*call]Answer{}
	for _, c := range calls {
		version := next.ResourceVersion
		if len(changing) > 0 {
			if _, kept := keptKey(base, c.Key); kept && c.Key != "" {
				rest = append(rest, c)
				continue
			}
			version = "" // the write of the earlier calls causes a resourceVersion that is not known yet
		}
		result, changed, refusal := c.apply(next, v.config.PodUID, version)
		switch {
		case changed:
			c.result = result
			changing = append(changing, c)
		case len(changing) > 0:
			rest = append(rest, c)
		default:
			unchanged[c] = Answer{Refusal: refusal, Result: result}
		}
	}
	return changing, unchanged, rest
}

// write sends the write that replaces base by next, and answers the calls. If the outcome cannot be
// proven, the answer is the refusal [Unknown]. Only the calls in the result "open" get no answer.
// For these calls this write will store nothing from now on. Also, this write has stored nothing,
// unless write marks the calls with a conflict. The result "refused" reports that the API server
// refused the write for another reason than a conflict.
func (v *Variable) write(ctx context.Context, calls []*call, base, next *kube.Variable) (open []*call, refused bool) {
	v.known = nil
	maybeStored := false // true after an attempt without an answer: its write may be stored now or later
	for attempt := 0; ; attempt++ {
		stored, err := v.put(ctx, next)
		switch {
		case err == nil:
			v.known = stored
			accept(calls, stored, stored)
			return nil, false
		case kube.Refused(err) && !maybeStored:
			v.config.Log.Debug("variable not written", "variable", v.config.Name, "err", err)
			if !errors.Is(err, kube.ErrConflict) {
				return calls, true
			}
			for _, c := range calls {
				c.conflict = &conflict{base: base, next: next}
			}
			return calls, false
		}
		maybeStored = true
		there := v.look(ctx, calls)
		if there == nil {
			refuse(calls, Unknown)
			return nil, false
		}
		switch proof(base, next, there) {
		case isStored:
			v.known = there
			accept(calls, next, there)
			return nil, false
		case isLost:
			return calls, false
		case isDoubtful:
			refuse(calls, Unknown)
			return nil, false
		case isOpen: // the Variable is as before, so the loop sends the same write again
		}
		if calls = expire(calls, Unknown); len(calls) == 0 {
			return nil, false
		}
		v.pause(ctx, attempt+3, errorPause)
	}
}

// confirm answers each call whose last write ended with a conflict, but was stored. A proxy may have
// repeated the stored PUT, so that the second PUT caused the conflict. The argument "there" is a
// state that was read after the conflict. The result has the other calls.
func confirm(calls []*call, there *kube.Variable) (open []*call) {
	for _, c := range calls {
		last := c.conflict
		c.conflict = nil
		if last != nil && proof(last.base, last.next, there) == isStored {
			accept([]*call{c}, last.next, there)
			continue
		}
		open = append(open, c)
	}
	return open
}

func (v *Variable) put(ctx context.Context, next *kube.Variable) (*kube.Variable, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return v.config.Requests.UpdateVariable(ctx, next)
}

// look reads the Variable after a write without an answer. If a read fails, look tries again, as
// long as a call still waits. The result is nil if all these reads fail. If the Variable is gone,
// look immediately returns nil.
func (v *Variable) look(ctx context.Context, calls []*call) *kube.Variable {
	for attempt := 0; ; attempt++ {
		there, err := variableSource{v.config}.read(ctx)
		if err == nil {
			return there
		}
		if errors.Is(err, kube.ErrNotFound) || ctx.Err() != nil || !slices.ContainsFunc(calls, func(c *call) bool { return !c.over() }) {
			return nil
		}
		v.pause(ctx, attempt, errorPause)
	}
}

// verdict is the outcome of a write without an answer, as far as a later read proves it.
type verdict int

const (
	// isOpen means that the write may still be stored.
	isOpen verdict = iota
	// isStored means that the write was stored. isLost means that the write was not stored and
	// never will be.
	isStored
	isLost
	// isDoubtful means that the write will not be stored from now on, but may have been stored
	// before.
	isDoubtful
)

// proof returns what a later state of the Variable proves about the write that replaces base by
// next. The argument "there" is that later state.
func proof(base, next, there *kube.Variable) verdict {
	switch {
	case there.UID != base.UID:
		return isDoubtful
	case there.Write == next.Write:
		return isStored
	case there.ResourceVersion == base.ResourceVersion:
		return isOpen
	case next.Keyed == base.Keyed:
		return isDoubtful
	}
	newest := next.Keys[len(next.Keys)-1]
	if k, ok := keptKey(there, newest.Key); ok && k == newest {
		return isStored
	}
	if keepsNewest(there, base.Keyed) {
		return isLost
	}
	return isDoubtful
}

// accept answers all calls that the stored write "next" has carried out. The argument "there" is a
// state that proves that write. If another write has replaced the write's own state, the version of
// that own state is not known. A call that needs this version gets the refusal [Unknown]. With the
// version of the other write, the program would overwrite a value that the program has not seen.
func accept(calls []*call, next, there *kube.Variable) {
	for _, c := range calls {
		switch {
		case c.adds():
			c.answer <- Answer{Result: c.result}
		case next.Write == there.Write:
			c.answer <- Answer{State: there}
		default:
			c.answer <- Answer{Refusal: Unknown}
		}
	}
}

func refuse(calls []*call, refusal Refusal) {
	for _, c := range calls {
		c.refuse(refusal)
	}
}

// expire returns the calls whose program still waits. Each other call gets the refusal as its
// answer.
func expire(calls []*call, refusal Refusal) []*call {
	return slices.DeleteFunc(calls, func(c *call) bool {
		over := c.over() // called only once, because a second call may return another result
		if over {
			c.refuse(refusal)
		}
		return over
	})
}

// pause waits for a random time, whose bound grows with the number of attempts.
func (v *Variable) pause(ctx context.Context, attempt int, longest time.Duration) {
	bound := min(shortestPause<<min(attempt, 12), longest)
	timer := time.NewTimer(time.Duration(v.random.Int64N(int64(bound))) + bound/4)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

const (
	// mostWatched bounds the duration of one watch.
	mostWatched = 5 * time.Minute
	// slowestLook bounds the pauses while the watch is broken, because a person may look at a stream of values.
	slowestLook = 2 * time.Second
)

// follow is the one watch that all followers of the Variable share.
type follow struct {
	variableSource
	tasks *tasks

	mu        sync.Mutex
	random    *rand.Rand
	followers int
	cancel    context.CancelFunc
	// state is the last state of the Variable. The field "gone" reports that somebody has deleted
	// the Variable. The channel "changed" is closed and replaced at each change.
	state   *kube.Variable
	gone    bool
	changed chan struct{}
}

// The function "later" reports whether a state is later than the one before, which may be nil.
func later(state, before *kube.Variable) bool {
	return before == nil || kube.Later(state.ResourceVersion, before.ResourceVersion)
}

// The method "now" returns the last state, whether the Variable is gone, and the channel that is
// closed at the next change.
func (f *follow) now() (state *kube.Variable, gone bool, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, f.gone, f.changed
}

// begin counts a follower, and starts the watch for the first one.
func (f *follow) begin(first *kube.Variable) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followers++
	if f.followers > 1 {
		return
	}
	ctx, end := context.WithCancel(f.tasks.ctx)
	f.state, f.gone, f.changed, f.cancel = first, false, make(chan struct{}), end
	random := rand.New(rand.NewPCG(f.random.Uint64(), f.random.Uint64())) // the watch before may still use its own
	f.tasks.start(func(context.Context) { f.watch(ctx, first, random) })
}

// The method "end" removes one follower, and ends the watch if no follower is left.
func (f *follow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.followers--; f.followers == 0 {
		f.cancel()
	}
}

// watch follows the Variable from the given state on, until ctx ends or the Variable is gone.
func (f *follow) watch(ctx context.Context, first *kube.Variable, random *rand.Rand) {
	_ = kube.Follow(ctx, kube.Following{ // the error is that of ctx
		Read: func(ctx context.Context) (string, error) {
			if state := first; state != nil {
				first = nil
				return state.ResourceVersion, nil
			}
			state, err := f.read(ctx)
			if errors.Is(err, kube.ErrNotFound) {
				f.tell(ctx, nil, true)
				return "", kube.ErrDone
			}
			if err != nil {
				return "", err
			}
			f.tell(ctx, state, false)
			return state.ResourceVersion, nil
		},
		Watch: func(watching context.Context, version string) error {
			return f.Requests.WatchVariable(watching, f.Name, version, func(now *kube.Variable, gone bool) {
				if last, _, _ := f.now(); later(now, last) {
					f.tell(ctx, now, gone)
				}
			})
		},
		Longest: mostWatched, Slowest: slowestLook, Random: random,
		Failed: func(err error) { f.Log.Debug("variable is out of sight", "variable", f.Name, "err", err) },
	})
}

// tell passes a state to all followers, unless the watch with this ctx has ended.
func (f *follow) tell(ctx context.Context, state *kube.Variable, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return // this watch has ended, and another watch may have begun
	}
	f.state, f.gone = state, f.gone || gone
	close(f.changed)
	f.changed = make(chan struct{})
}
