// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	cachepkg "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll"
)

const namespace = "shop"

// roleName is that of the Role, and of its binding, of the account of all pods.
var roleName = enroll.RoleName("default")

// enroller is one process of the webhook, as far as enroll goes.
type enroller struct {
	*process
	name  string
	rng   *rand.Rand
	wake  chan struct{}
	cache cache
	// nudged is when something changed last: the informers tell of it when
	// they see it.
	nudged time.Duration
}

// kubeClient is controller-runtime's client over the simulated API server:
// what enroll uses of it, and a panic for the rest.
type kubeClient struct {
	client.Client
	to *enroller
	c  *clientOf
	// cached: what is read may be old.
	cached bool
}

// cache is how far behind an enroller's informers are. It never goes back.
type cache struct {
	at time.Duration
	// pinned: it stays as it is.
	pinned bool
}

func (w *world) newEnroller(name string) *enroller {
	p := w.newProcess()
	e := &enroller{process: p, name: name, rng: w.source(name), wake: make(chan struct{}, 1)}
	c := w.newClient(p, name, nil)
	r := &enroll.Reconciler{
		Client: &kubeClient{to: e, c: c, cached: true},
		Reader: &kubeClient{to: e, c: c},
		Now:    time.Now,
	}
	w.enrolls = append(w.enrolls, e)
	w.api.dirty = append(w.api.dirty, e.nudge)
	w.note(name, "starts")
	w.group.Go(func() { e.run(r) })
	return e
}

func (e *enroller) nudge() {
	e.nudged = e.w.now()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run reconciles whenever something has changed, when it asked to be called
// again, and after an error.
func (e *enroller) run(r *enroll.Reconciler) {
	for {
		var from time.Duration
		e.w.do(func() { from = e.cache.at })
		ctx, cancel := context.WithTimeout(e.ctx, 30*time.Second)
		again, err := r.Namespace(ctx, namespace)
		cancel()
		pause := 30 * time.Second
		if again > 0 {
			pause = min(pause, again)
		}
		if err != nil {
			pause = between(e.rng, 50*time.Millisecond, time.Second)
		}
		e.w.do(func() {
			if from < e.nudged && !e.cache.pinned {
				pause = min(pause, between(e.rng, 50*time.Millisecond, time.Second))
			}
		})
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-e.wake:
			// Informers and the queue take a moment.
			select {
			case <-time.After(between(e.rng, time.Millisecond, 300*time.Millisecond)):
			case <-e.ctx.Done():
			}
		case <-e.ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// retire ends the process for good.
func (e *enroller) retire() {
	e.w.note(e.name, "is dead")
	e.die()
	e.w.enrolls = slices.DeleteFunc(e.w.enrolls, func(other *enroller) bool { return other == e })
}

func (w *world) isOptedOut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.optedOut
}

func kindOf(o any) string {
	return strings.TrimSuffix(reflect.TypeOf(o).Elem().Name(), "List")
}

func nameOf(o client.Object) string { return o.GetName() }

// Get implements client.Reader.
func (k *kubeClient) Get(ctx context.Context, at client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	kind := kindOf(into)
	if kind == "Namespace" {
		into.SetName(at.Name)
		if !k.to.w.isOptedOut() {
			into.SetLabels(map[string]string{api.InjectionLabel: api.InjectionEnabled})
		}
		return nil
	}
	if k.cached {
		raw, err := k.old(kind, at.Name)
		if err != nil {
			return translate(kind, at.Name, err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return err
		}
		return stripped(into)
	}
	raw, err := k.c.do(ctx, "get "+kind+at.Name, func() ([]byte, error) { return k.c.w.api.get(kind, at.Name) })
	if err != nil {
		return translate(kind, at.Name, err)
	}
	return json.Unmarshal(raw, into)
}

// old reads from the cache.
func (k *kubeClient) old(kind, name string) ([]byte, error) {
	if !k.to.enter() {
		return nil, errDead
	}
	defer k.to.w.mu.Unlock()
	if v := k.c.w.api.object(kind, name).asOf(k.to.lag()); v.body != nil {
		return v.raw, nil
	}
	return nil, status(404, "NotFound", name)
}

// lag is the instant as of which the cache is.
func (e *enroller) lag() time.Duration {
	if e.cache.pinned {
		return e.cache.at
	}
	behind := between(e.rng, 0, 50*time.Millisecond)
	if chance(e.rng, e.w.weather.slow) {
		behind = between(e.rng, 0, 30*time.Second)
	}
	e.cache.at = max(e.cache.at, e.w.now()-behind)
	return e.cache.at
}

// List implements client.Reader.
func (k *kubeClient) List(ctx context.Context, into client.ObjectList, opts ...client.ListOption) error {
	var options client.ListOptions
	options.ApplyOptions(opts)
	kind := kindOf(into)
	list := func(at func(*object) version) []byte {
		items := []json.RawMessage{}
		for _, name := range k.c.w.api.names {
			o := k.c.w.api.objects[name]
			v := at(o)
			if o.kind == kind && v.body != nil && selects(options.LabelSelector, v.body) {
				items = append(items, v.raw)
			}
		}
		return encode(map[string]any{"items": items})
	}
	if k.cached {
		if !k.to.enter() {
			return errDead
		}
		at := k.to.lag()
		raw := list(func(o *object) version { return o.asOf(at) })
		k.to.w.mu.Unlock()
		if err := json.Unmarshal(raw, into); err != nil {
			return err
		}
		return apimeta.EachListItem(into, stripped)
	}
	raw, err := k.c.do(ctx, "list "+kind, func() ([]byte, error) { return list((*object).last), nil })
	if err != nil {
		return translate(kind, "", err)
	}
	return json.Unmarshal(raw, into)
}

// stripped does to an object what the manager's cache does.
func stripped(o runtime.Object) error {
	for of, by := range transforms {
		if reflect.TypeOf(of) == reflect.TypeOf(o) && by.Transform != nil {
			_, err := by.Transform(o)
			return err
		}
	}
	return nil
}

var transforms = func() map[client.Object]cachepkg.ByObject {
	all, err := enroll.Cache()
	must(err)
	return all
}()

func selects(selector labels.Selector, body map[string]any) bool {
	if selector == nil {
		return true
	}
	set := labels.Set{}
	if all, ok := metadata(body)["labels"].(map[string]any); ok {
		for key, value := range all {
			set[key] = fmt.Sprint(value)
		}
	}
	return selector.Matches(set)
}

// Create implements client.Writer.
func (k *kubeClient) Create(ctx context.Context, o client.Object, _ ...client.CreateOption) error {
	return k.write(ctx, "create ", o, func(raw []byte) ([]byte, error) {
		return k.c.w.api.create(k.to.name, kindOf(o), nameOf(o), raw)
	})
}

// Update implements client.Writer.
func (k *kubeClient) Update(ctx context.Context, o client.Object, _ ...client.UpdateOption) error {
	return k.write(ctx, "put ", o, func(raw []byte) ([]byte, error) {
		return k.c.w.api.put(k.to.name, kindOf(o), nameOf(o), raw)
	})
}

func (k *kubeClient) write(ctx context.Context, verb string, o client.Object, effect func([]byte) ([]byte, error)) error {
	body := encode(o)
	raw, err := k.c.do(ctx, verb+kindOf(o)+nameOf(o), func() ([]byte, error) { return effect(body) })
	if err != nil {
		return translate(kindOf(o), nameOf(o), err)
	}
	return json.Unmarshal(raw, o)
}

// Delete implements client.Writer.
func (k *kubeClient) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	var options client.DeleteOptions
	options.ApplyOptions(opts)
	uid, rv := "", ""
	if p := options.Preconditions; p != nil {
		if p.UID != nil {
			uid = string(*p.UID)
		}
		if p.ResourceVersion != nil {
			rv = *p.ResourceVersion
		}
	}
	kind, name := kindOf(o), nameOf(o)
	_, err := k.c.do(ctx, "delete "+kind+name, func() ([]byte, error) {
		err := k.c.w.api.remove(k.to.name, kind, name, uid, rv)
		if err == nil && kind == "Lease" {
			k.c.w.checkSwept(name)
		}
		return nil, err
	})
	return translate(kind, name, err)
}

// translate makes of our server's errors those of client-go.
func translate(kind, name string, err error) error {
	var s *kube.StatusError
	if !errors.As(err, &s) {
		return err
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: int32(s.Code), Reason: metav1.StatusReason(s.Reason),
		Message: kind + " " + name + ": " + s.Message,
	}}
}

// granted reports whether a Role that is bound to the account gives the right.
func (s *server) granted(account, verb, lease string) bool {
	name := enroll.RoleName(account)
	role := s.object("Role", name).last()
	if role.raw == nil || s.object("RoleBinding", name).last().raw == nil {
		return false
	}
	if s.rights.version != role.rv {
		var r rbacv1.Role
		must(json.Unmarshal(role.raw, &r))
		s.rights = rights{version: role.rv, rules: r.Rules}
	}
	return slices.ContainsFunc(s.rights.rules, func(rule rbacv1.PolicyRule) bool {
		return slices.Contains(rule.Resources, "leases") && slices.Contains(rule.Verbs, verb) &&
			slices.Contains(rule.ResourceNames, lease)
	})
}

// rights are the rules of a version of a Role, decoded.
type rights struct {
	version int64
	rules   []rbacv1.PolicyRule
}
