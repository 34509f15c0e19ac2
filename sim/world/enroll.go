// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/enroll/step"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Namespace is the only namespace of the world.
const Namespace = "shop"

// RoleName is the name of the Role that gives rights to the account of all pods. The RoleBinding of
// that Role has the same name.
var RoleName = step.RoleName(account, 0)

// ConditionRoleName is the name of the Role by which pods read the Leases of their conditions.
var ConditionRoleName = step.SingleRoleName(step.ConditionPrefix, account)

// rightsOf returns the function by which the API server authorizes requests for Leases of a pod that
// has only the rights of the named Role. See [apiserver.Client].
func (w *World) rightsOf(role string) func(verb, lease string) error {
	return func(verb, lease string) error {
		if !w.API.Granted(role, verb, lease) {
			return apiserver.Status(403, "Forbidden", verb+" "+lease)
		}
		return nil
	}
}

// account is the service account of all pods.
const account = "default"

// Unknown is the holder that enroll writes into a Lease under whose name a pod may still hold.
const Unknown = step.Unknown

// Reconciler gives the namespace the Leases and rights that its pods need. enroll.Reconciler and
// the model of enroll implement this interface.
type Reconciler interface {
	// Namespace reconciles the namespace once, and returns the time until the next call.
	Namespace(ctx context.Context, name string) (time.Duration, error)
}

// Enroller is one process of the webhook that runs a Reconciler. The process has a
// client of the API server and a cache.
type Enroller struct {
	*engine.Process
	w      *World
	client *apiserver.Client
	// Name is the name of the process in the history of events.
	Name string
	rng  *rand.Rand
	wake chan struct{}
	// Cache has the state that the process knows without a request.
	Cache Cache
	// Believes is the number of shards that a confused process takes for the current number. Zero
	// means that the process is not confused, and reads the template and the pods. Only the model
	// of enroll is ever confused.
	Believes int
	// BelievesIn is the run that a confused process takes for the current run.
	BelievesIn string
	// nudged is the instant of the last change of an object. If the cache was older at the
	// beginning of the Reconciler's last call, the Reconciler soon runs again.
	nudged time.Duration
}

// Cache models the informers' cache of an Enroller. The cache shows the state of the objects at an
// earlier instant. That instant never goes back.
type Cache struct {
	// At is the instant whose state the cache shows.
	At time.Duration
	// Pinned reports that the cache does not change.
	Pinned bool
}

// NewEnroller starts a process of enroll.
func (w *World) NewEnroller(name string) *Enroller {
	p := w.NewProcess()
	e := &Enroller{w: w, Process: p, client: w.newClient(p, name, nil), Name: name, rng: w.Source(name), wake: make(chan struct{}, 1)}
	r := w.reconciler(e)
	_, isModel := r.(*model)
	w.Real = !isModel
	w.Enrolls = append(w.Enrolls, e)
	w.API.Subscribe(e.Nudge)
	w.Note(name, "starts")
	w.Group.Go(func() { e.run(r) })
	return e
}

// Nudge tells the Enroller that an object has changed.
func (e *Enroller) Nudge() {
	e.nudged = e.w.Now()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run reconciles after each change, after each error, and once the duration that the Reconciler
// returned has passed. Without any of these causes, run reconciles every 30 s.
func (e *Enroller) run(r Reconciler) {
	for {
		var from time.Duration
		e.w.Do(func() { from = e.Cache.At })
		ctx, cancel := context.WithTimeout(e.Ctx, 30*time.Second)
		again, err := r.Namespace(ctx, Namespace)
		cancel()
		pause := 30 * time.Second
		if again > 0 {
			pause = min(pause, again)
		}
		if err != nil {
			pause = engine.Between(e.rng, 50*time.Millisecond, time.Second)
		}
		e.w.Do(func() {
			if from < e.nudged && !e.Cache.Pinned {
				pause = min(pause, engine.Between(e.rng, 50*time.Millisecond, time.Second))
			}
		})
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-e.wake:
			// In a cluster, the informers and the work queue delay the reconciliation after a
			// change.
			select {
			case <-time.After(engine.Between(e.rng, time.Millisecond, 300*time.Millisecond)):
			case <-e.Ctx.Done():
			}
		case <-e.Ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// Retire ends the process for good.
func (e *Enroller) Retire() {
	e.w.Note(e.Name, "is dead")
	e.Die()
	e.w.Enrolls = slices.DeleteFunc(e.w.Enrolls, func(other *Enroller) bool { return other == e })
}

// OptedOut reports whether the namespace has lost the label by which a namespace opts in.
func (e *Enroller) OptedOut() bool {
	e.w.Lock()
	defer e.w.Unlock()
	return e.w.OptedOut
}

// Get reads an object from the API server, not from the cache.
func (e *Enroller) Get(ctx context.Context, kind, name string) ([]byte, error) {
	return e.client.Do(ctx, "get "+kind+name, func() ([]byte, error) { return e.w.API.Get(kind, name) })
}

// Cached reads an object from the cache.
func (e *Enroller) Cached(kind, name string) ([]byte, error) {
	if !e.Enter() {
		return nil, engine.ErrDead
	}
	defer e.Leave()
	if v := e.w.API.Object(kind, name).AsOf(e.lag()); v.Body != nil {
		return v.Raw, nil
	}
	return nil, apiserver.Status(404, "NotFound", name)
}

// List reads all objects of a kind with selected labels from the API server, and
// returns them as a list's JSON.
func (e *Enroller) List(ctx context.Context, kind string, selects func(labels map[string]string) bool) ([]byte, error) {
	return e.client.Do(ctx, "list "+kind, func() ([]byte, error) { return e.w.API.List(kind, selects, (*apiserver.Object).Last), nil })
}

// ListCached reads from the cache the objects that [Enroller.List] reads from the
// server.
func (e *Enroller) ListCached(kind string, selects func(labels map[string]string) bool) ([]byte, error) {
	if !e.Enter() {
		return nil, engine.ErrDead
	}
	defer e.Leave()
	at := e.lag()
	return e.w.API.List(kind, selects, func(o *apiserver.Object) apiserver.Version { return o.AsOf(at) }), nil
}

// lag moves the cache forward, unless the cache is pinned, and returns the instant whose state the
// cache shows.
func (e *Enroller) lag() time.Duration {
	if e.Cache.Pinned {
		return e.Cache.At
	}
	behind := engine.Between(e.rng, 0, 50*time.Millisecond)
	if engine.Chance(e.rng, e.w.API.Weather.Slow) {
		behind = engine.Between(e.rng, 0, 30*time.Second)
	}
	e.Cache.At = max(e.Cache.At, e.w.Now()-behind)
	return e.Cache.At
}

// Create writes a new object.
func (e *Enroller) Create(ctx context.Context, kind, name string, body []byte) ([]byte, error) {
	return e.client.Do(ctx, "create "+kind+name, func() ([]byte, error) { return e.w.API.Create(e.Name, kind, name, body) })
}

// Update replaces an object.
func (e *Enroller) Update(ctx context.Context, kind, name string, body []byte) ([]byte, error) {
	return e.client.Do(ctx, "put "+kind+name, func() ([]byte, error) { return e.w.API.Put(e.Name, kind, name, body) })
}

// Delete deletes an object if uid and resourceVersion match. An empty uid or resourceVersion
// matches any object.
func (e *Enroller) Delete(ctx context.Context, kind, name, uid, rv string) error {
	_, err := e.client.Do(ctx, "delete "+kind+name, func() ([]byte, error) {
		return nil, e.remove(kind, name, uid, rv)
	})
	return err
}

// remove deletes an object at once, without a request.
func (e *Enroller) remove(kind, name, uid, rv string) error {
	err := e.w.API.Remove(e.Name, kind, name, uid, rv)
	if err == nil && kind == "Lease" {
		e.w.Checks.checkSwept(name)
	}
	return err
}
