// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// told returns an Event that a pod's agent wrote. The argument "before" is the time from the Event
// to noon.
func told(before time.Duration, pod, reason, message string) *corev1.Event {
	e := event("Pod", pod, reason, message)
	e.Name += "." + before.String()
	e.UID, e.Source.Component = types.UID(e.Name), api.AgentReporter
	e.LastTimestamp = metav1.Time{Time: noon.Add(-before)}
	return e
}

func (b *byHand) status(t *testing.T, v screen, namespace string, args ...string) int {
	return b.exitCode(t, func(std stdio, c cluster) (int, error) {
		v.std, v.now = std, func() time.Time { return noon }
		return v.run(t.Context(), c, namespace, args)
	})
}

func TestStatusCommandShowsHolderAndStandbys(t *testing.T) {
	held := team(nil)
	for _, o := range held {
		if l, ok := o.(*coordinationv1.Lease); ok {
			l.Spec.LeaseTransitions = new(int32(2))
		}
	}
	there := append(held,
		told(30*time.Minute, "c", "Acquired", "this pod holds "+slot+" (token 4000)"),
		told(10*time.Minute+3*time.Second, "c", "Yielded", "draining to hand over "+slot),
		told(10*time.Minute+2*time.Second, "c", "Released", slot+" is free again"),
		told(10*time.Minute, "a", "Acquired", "this pod holds "+slot+" (token 4711)"),
		told(time.Minute, "b", "Acquired", "this pod holds "+slot+"-2 (token 1)"))
	b := newByHand(there...)
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
	assert.Equal(t, `singleton.deployment.biller: singleton, held by a, for 10m, token 4711, renewed 3s ago, serves for 9m, 2 standbys
  standby   b  Ready    StandingBy: a holds it
  standby   c  Ready    StandingBy: a holds it
  handover  a  10m ago  from c (Yielded), 2s after its release
  handover  c  30m ago  first holder
`, b.out.String())
	assert.Empty(t, b.err.String())
}

// Nobody knows the slot of an annotation with a mistake, and an operator's template lacks the claim. Their pods
// run without a gate or are refused, so the command must not say that there is nothing.
func TestStatusCommandShowsClaimsThatNoPodHas(t *testing.T) {
	misspelt := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "web", Annotations: map[string]string{api.Prefix + "singelton": "true"}}}
	misspelt.Status.Replicas = 2
	operated := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "main", UID: "main", Annotations: map[string]string{api.SingletonAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "monitoring.example/v1", Kind: "Prometheus", Name: "main", UID: "u", Controller: new(true)}},
	}}
	later := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "later", UID: "later", Annotations: map[string]string{api.SingletonAnnotation: "true"}}}
	nightly := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "nightly", UID: "nightly", Annotations: map[string]string{api.SingletonAnnotation: "true"}}}
	b := newByHand(misspelt, operated, later, nightly, slotLease("singleton.deployment.later", "", nil))
	assert.Equal(t, exitNot, b.status(t, screen{bare: true}, "shop"))
	assert.Regexp(t, `(?s)^metaparticle.io/singelton +<none> +0 +Ungated\(2\),NotCarried
singleton.cronjob.nightly +<none> +0 +NotCarried,NoLease
singleton.deployment.later +<none> +0 +NotCarried,Free
singleton.statefulset.main +<none> +0 +NotCarried,NoLease
$`, b.out.String())
	for subject, row := range map[string]string{"deployment/web": "metaparticle.io/singelton", "statefulset/main": "singleton.statefulset.main", "deployment/later": "singleton.deployment.later"} {
		b.out.Reset()
		assert.Equal(t, exitNot, b.status(t, screen{bare: true}, "shop", subject), subject)
		assert.Regexp(t, `^`+row+` .*NotCarried`, b.out.String(), subject)
	}
	b.out.Reset()
	b.status(t, screen{words: true}, "shop", "deployment/web")
	assert.Contains(t, b.out.String(), "metaparticle.io/singelton: an annotation with a mistake, so its pods have no slot\n")
	b.out.Reset()
	b.status(t, screen{output: "name"}, "shop", "deployment/web")
	assert.Empty(t, b.out.String(), "it is no Lease")
}

func TestStatusCommandShowsSupporters(t *testing.T) {
	list := api.Supporters{Wait: 30 * time.Second, Key: "key", IDs: []string{"b_b-uid/key", "c_c-uid/key"}}
	held := slotLease(slot, "a", map[string]string{api.HoldAnnotation: "h1", api.SupportersAnnotation: list.Text("a_a-uid", "h1")})
	held.Spec.LeaseDurationSeconds = new(int32(750))
	b := newByHand(held, waiting("a"), waiting("b"), waiting("c"))
	b.status(t, screen{words: true}, "shop")
	assert.Contains(t, b.out.String(), "renewed 3s ago, without a renewal takeover by b, c in 30s; others in 12m30s, serves")
	b.out.Reset()
	b.status(t, screen{output: "jsonpath={.slots[0].holder.takeover}"}, "shop")
	assert.Equal(t, "takeover by b, c in 30s; others in 12m30s\n", b.out.String())
}

func TestStatusCommandShowsWhoAsksAndWhoAnswered(t *testing.T) {
	b := newByHand(asked()...)
	b.status(t, screen{bare: true}, "shop")
	assert.Regexp(t, `^singleton.deployment.biller +a +10m +1 +Serving,Leaving\n$`, b.out.String())

	b.out.Reset()
	b.status(t, screen{words: true}, "shop")
	assert.Equal(t, `singleton.deployment.biller: singleton, held by a, for 10m, token 4711, renewed 3s ago, serves for 9m, 1 standby
  a leaves, and c follows. Answers: c (can take the slot). Its application has its pod's grace to stop, so there is nothing to do.
  standby  c  not Ready  AsksForItsTurn: asks a for turn 1 of revision 5
  singleton.deployment.biller moved to a from z (Yielded to a newer revision).
`, b.out.String())

	b.out.Reset()
	b.status(t, screen{output: "jsonpath={.slots[0].talk.asks} {.slots[0].talk.answers[0].say} {.slots[0].moved.from}"}, "shop")
	assert.Equal(t, "c takes z\n", b.out.String())

	waits := asked()
	delete(waits[0].GetAnnotations(), api.LeavingAnnotation)
	waits[1].GetAnnotations()[api.WordsAnnotation] = "newer:c_c-uid:h1:u/5/x:1767355203000"
	b = newByHand(waits...)
	b.status(t, screen{bare: true}, "shop")
	assert.Contains(t, b.out.String(), "Serving,Wished\n")

	for text, want := range map[string]string{`"yields":"later"`: "Serving,RolloutWaits(40s)\n", `"yields":"later","yielder":"z_u"`: "Serving,RolloutWaits\n"} {
		waits := asked()
		held := waits[0].GetAnnotations()
		delete(held, api.LeavingAnnotation)
		held[api.ServingAnnotation], held[api.RolloutAnnotation] = noon.Add(-20*time.Second).Format(time.RFC3339), `{"hold":"h1",`+text+`}`
		b = newByHand(waits...)
		b.status(t, screen{bare: true}, "shop")
		assert.Contains(t, b.out.String(), want)
	}
}

func TestStatusCommandShowsSlotsInATable(t *testing.T) {
	other := slotLease("lock.gone", "x", nil)
	other.Namespace = "till"
	there := append(team(nil), other, slotLease("lock.free", "", nil), slotLease("lock.stopped", "", map[string]string{api.PausedAnnotation: "stop"}),
		slotLease("once.schema", "", map[string]string{api.DoneAnnotation: "7"}), waiting("s", "lock.missing"),
		slotLease(api.RWLockLease("catalog", 0), "r", nil), slotLease(api.RWLockLease("catalog", 1), "q", nil), slotLease(api.IntentLease("catalog"), "", nil),
		told(10*time.Minute+3*time.Second, "c", "Yielded", "draining to hand over "+slot),
		told(10*time.Minute+2*time.Second, "c", "Released", slot+" is free again"),
		told(10*time.Minute, "a", "Acquired", "this pod holds "+slot+" (token 4711)"))
	for _, o := range there {
		if pod, ok := o.(*corev1.Pod); ok {
			pod.Spec.NodeName = "node-" + pod.Name
		}
	}
	const table = `SLOT                          HOLDER   NODE     HELD   STANDBYS   STATUS
lock.free                     <none>                   0          Free
lock.missing                  <none>                   1          NoLease
lock.stopped                  <none>                   0          Paused(stop)
once.schema                   <none>                   0          Done
rwlock.catalog                r                 10m    0          Reads
rwlock.catalog                q                 10m    0          Reads
singleton.deployment.biller   a        node-a   10m    2          Serving
`
	b := newByHand(there...)
	assert.Equal(t, exitNot, b.status(t, screen{}, "shop"))
	assert.Equal(t, table, b.out.String())

	b.out.Reset()
	b.status(t, screen{}, "")
	assert.Contains(t, b.out.String(), "NAMESPACE   SLOT   ")
	assert.Regexp(t, `(?m)^till +lock.gone +x +10m +0 +HolderGone$`, b.out.String())

	b.out.Reset()
	assert.Equal(t, exitOK, b.status(t, screen{output: "wide", bare: true}, "shop", slot))
	assert.Regexp(t, `^singleton.deployment.biller +a +node-a +10m +2 +Serving +9m +3s ago +4711 +from c \(Yielded\), 2s after its release, 10m ago\n$`, b.out.String())

	b.out.Reset()
	b.status(t, screen{output: "name"}, "shop", "rwlock/catalog")
	assert.Equal(t, "lease/rwlock.catalog.0\nlease/rwlock.catalog.1\nlease/rwlock.catalog.intent\n", b.out.String())

	b.out.Reset()
	b.status(t, screen{output: "jsonpath={.slots[*].holder.pod}"}, "shop", slot)
	assert.Equal(t, "a\n", b.out.String())
}

// A program of the local API may want no slot, so a slot without a holder is no problem.
func TestStatusCommandShowsWhichPodsUseLocalAPI(t *testing.T) {
	b := newByHand(slotLease("lock.a", "a", nil), slotLease("election.main", "", nil),
		localPod("a", corev1.ConditionTrue, "election.main", "lock.a"), localPod("b", corev1.ConditionFalse, "election.main", "lock.a"))
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
	assert.Equal(t, `election.main: election, nobody holds, 2 standbys
  standby  a  Ready      LocalAPI: the program asks by the local API
  standby  b  not Ready  LocalAPI: the program asks by the local API
lock.a: lock, held by a, for 10m, token 4711, renewed 3s ago, serves for 9m, 1 standby
  standby  b  not Ready  LocalAPI: the program asks by the local API
`, b.out.String())
	b = newByHand(slotLease("election.main", "", nil), localPod("a", corev1.ConditionTrue, "election.main"))
	assert.Equal(t, exitOK, b.status(t, screen{output: "yaml"}, "shop", "election/main"))
	assert.Contains(t, b.out.String(), "program: true")
	assert.Empty(t, unfit(*localPod("b", corev1.ConditionFalse, "lock.a"), nil), "the program may ask")
	b = newByHand(slotLease("lock.a", "", nil), localPod("a", corev1.ConditionTrue, "lock.a"), waiting("b", "lock.a"))
	assert.Equal(t, exitNot, b.status(t, screen{words: true}, "shop"), "the other pod waits")
}

func TestStatusCommandShowsPodsThatWaitToStart(t *testing.T) {
	const slot = "start-lock.db"
	waits := waiting("b", slot)
	for i := range waits.Status.Conditions {
		waits.Status.Conditions[i].Status = corev1.ConditionFalse
	}
	b := newByHand(slotLease(slot, "a", nil), waiting("a", slot), waits, waiting("c", slot))
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop", "start-lock/db"))
	assert.Contains(t, b.out.String(), "start-lock.db: start-lock, held by a, for 10m")
	assert.Contains(t, b.out.String(), "1 standby")
	assert.NotContains(t, b.out.String(), "  standby  c")
	assert.Equal(t, exitRefused, b.yield(t, yielding{}, "start-lock/db"))
	assert.Contains(t, b.err.String(), "start-lock/db is a start lock, which ends when the application is ready")
}

func TestStatusCommandReportsEachProblemOfASlot(t *testing.T) {
	changed := slotLease("lock.a", "", map[string]string{api.SuccessorAnnotation: "b_b-uid"})
	changed.Spec.LeaseTransitions = new(int32(7))
	gone := slotLease("lock.b", "x", map[string]string{api.ServingAnnotation: ""})
	paused := slotLease("lock.c", "", map[string]string{api.PausedAnnotation: "stop"})
	asked := slotLease("lock.d", "a", map[string]string{api.YieldAnnotation: "hold-a b_b-uid"})
	idle := slotLease("lock.e", "", nil)
	foreign := leaseOf("somebody")
	foreign.Name, foreign.UID = "not-ours", "not-ours"
	silent := edited(waiting("s", "lock.a", "lock.missing"), func(p *corev1.Pod) { p.Status.Conditions = nil })
	b := newByHand(changed, gone, paused, asked, idle, foreign, silent, waiting("a", "lock.d"), waiting("c", "lock.c"))
	assert.Equal(t, exitNot, b.status(t, screen{words: true}, "shop"))
	assert.Equal(t, `lock.a: lock, nobody holds, b is to hold next, 1 standby
  critical: nobody holds lock.a, and 1 pod waits
    run: kubectl metaparticle explain -n shop pod/s
  standby  s  not Ready  Unknown: its agent has said nothing yet
  the holder has changed 7 times; no Event tells more
lock.b: lock, held by x, a pod that is gone, for 10m, token 4711, renewed 3s ago, does not serve, 0 standbys
  warning: the holder x of lock.b is gone: the slot is free once its lease expires
lock.c: lock, nobody holds, paused (stop), 1 standby
  note: lock.c is paused by hand (stop)
    run: kubectl metaparticle resume -n shop lock.c
  standby  c  Ready  StandingBy: a holds it
lock.d: lock, held by a, for 10m, token 4711, renewed 3s ago, serves for 9m, asked to yield, 0 standbys
lock.e: lock, nobody holds, 0 standbys
lock.missing: a lock that waits for its Lease
  warning: lock.missing has no Lease yet: enroll has not made it
  standby  s  not Ready  Unknown: its agent has said nothing yet
`, b.out.String())

	for target, code := range map[string]int{"lock/c": exitOK, "lock/d": exitOK, "pod/c": exitOK, "lock/b": exitNot, "pod/s": exitNot} {
		b.out.Reset()
		assert.Equal(t, code, b.status(t, screen{words: true}, "shop", target), target)
		assert.NotContains(t, b.out.String(), "lock.e", target)
	}
}

func TestStatusCommandListsTheSlotsOfASemaphore(t *testing.T) {
	pool := []string{"semaphore.pool.0", "semaphore.pool.1"}
	b := newByHand(slotLease(pool[0], "a", nil), slotLease(pool[1], "b", nil),
		waiting("a", pool...), waiting("b", pool...), waiting("c", pool...))
	assert.Equal(t, exitOK, b.status(t, screen{output: "json"}, "shop", "semaphore/pool"))
	var shown struct{ Slots []view.Slot }
	require.NoError(t, json.Unmarshal(b.out.Bytes(), &shown))
	require.Len(t, shown.Slots, 2)
	for i, s := range shown.Slots {
		assert.Equal(t, "semaphore", s.Kind)
		assert.Equal(t, []string{"a", "b"}[i], s.Holder.Pod)
		require.Len(t, s.Standbys, 1, "a pod that holds another slot waits for none")
		assert.Equal(t, "c", s.Standbys[0].Pod)
	}
}

func TestStatusCommandShowsTheStampOfEachShard(t *testing.T) {
	all := []string{"shards.deployment.web.0", "shards.deployment.web.1"}
	b := newByHand(slotLease(all[0], "a", map[string]string{api.StampAnnotation: "4/2"}), slotLease(all[1], "", map[string]string{api.StampAnnotation: "5/3 closed"}),
		waiting("a", all...), waiting("b", all...))
	assert.Equal(t, exitNot, b.status(t, screen{words: true}, "shop"), "nobody holds a shard")
	assert.Contains(t, b.out.String(), "shards.deployment.web.0: shards, held by a, for 10m, token 4711, renewed 3s ago, serves for 9m, for 2 shards, 1 standby\n")
	assert.Contains(t, b.out.String(), "shards.deployment.web.1: shards, nobody holds, closed for a change to 3 shards, 1 standby\n")

	b = newByHand(slotLease("shards.job.map.0", "", map[string]string{api.StampAnnotation: "2/1/1-a", api.DoneAnnotation: "2-b,1-a"}))
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"), "a done shard needs no holder")
	assert.Contains(t, b.out.String(), "shards.job.map.0: shards, for 1 shard in the run 1-a, done: 2-b 1-a, 0 standbys\n")

	b = newByHand(slotLease("once.schema", "", map[string]string{api.DoneAnnotation: "7"}))
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
	assert.Equal(t, "once.schema: once, done: 7, 0 standbys\n", b.out.String())
}

func TestStatusCommandShowsTheFailuresOfEachKey(t *testing.T) {
	b := newByHand(slotLease("once.schema", "", map[string]string{api.FailuresAnnotation: "8 1,7 3,-9 4", api.DoneAnnotation: "6"}))
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
	assert.Equal(t, "once.schema: once, nobody holds, done: 6, 0 standbys\n  warning: the work 7 failed 3 times in a row\n  warning: the work 8 failed 1 time\n", b.out.String())
	b.out.Reset()
	assert.Equal(t, exitOK, b.status(t, screen{output: "json"}, "shop"))
	var shown struct{ Slots []view.Slot }
	require.NoError(t, json.Unmarshal(b.out.Bytes(), &shown))
	require.Len(t, shown.Slots, 1)
	assert.Equal(t, map[string]int{"7": 3, "8": 1}, shown.Slots[0].Failures)
	assert.Contains(t, b.out.String(), `"failures": {`)
}

func TestStatusCommandPrintsEqualJSONAndYAML(t *testing.T) {
	b := newByHand(append(team(map[string]string{api.PausedAnnotation: "hold"}),
		told(10*time.Minute, "a", "Acquired", "this pod holds "+slot+" (token 4711)"))...)
	require.Equal(t, exitOK, b.status(t, screen{output: "json"}, "shop"))
	fromJSON := b.out.String()
	b.out.Reset()
	require.Equal(t, exitOK, b.status(t, screen{output: "yaml"}, "shop"))
	again, err := yaml.YAMLToJSON(b.out.Bytes())
	require.NoError(t, err)
	assert.JSONEq(t, fromJSON, string(again))
	assert.JSONEq(t, `{"slots": [{
		"namespace": "shop", "slot": "singleton.deployment.biller", "kind": "singleton", "paused": "hold",
		"holder": {
			"pod": "a", "identity": "a_a-uid", "hold": "hold-a", "token": "4711",
			"since": "2026-01-02T11:50:00Z", "renewed": "2026-01-02T11:59:57Z", "servingSince": "2026-01-02T11:51:00Z"
		},
		"standbys": [
			{"pod": "b", "ready": true, "reason": "StandingBy", "message": "a holds it"},
			{"pod": "c", "ready": true, "reason": "StandingBy", "message": "a holds it"}
		],
		"transitions": 0,
		"handovers": [{"at": "2026-01-02T11:50:00Z", "pod": "a"}],
		"findings": [{
			"reason": "Paused", "about": "singleton.deployment.biller", "says": "singleton.deployment.biller is paused by hand (hold)",
			"run": "kubectl metaparticle resume -n shop singleton.deployment.biller", "severity": "note"
		}]
	}]}`, fromJSON)
	assert.False(t, strings.HasPrefix(b.out.String(), "---"), "a document alone needs no separator")
}

func TestStatusCommandNamesTheNamespaceOfEachSlot(t *testing.T) {
	other := slotLease("lock.a", "", nil)
	other.Namespace = "till"
	b := newByHand(append(team(nil), other)...)
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, ""))
	assert.Contains(t, b.out.String(), "shop/"+slot+": singleton, held by a")
	assert.Contains(t, b.out.String(), "till/lock.a: lock, nobody holds")
}

// A repaired Deployment has the Events of its earlier ReplicaSets for an hour.
func TestStatusCommandNamesWorkloadsOfRefusedPods(t *testing.T) {
	set := func(name, of, revision string, lacks int32) client.Object {
		rs := &appsv1.ReplicaSet{ObjectMeta: owned(meta(name, map[string]string{"deployment.kubernetes.io/revision": revision}), "apps/v1", "Deployment", of)}
		rs.UID, rs.Spec.Replicas = types.UID(name), new(lacks)
		return rs
	}
	refused := func(of, message string, ago time.Duration) *corev1.Event {
		e := event("ReplicaSet", of, "FailedCreate", message)
		e.Name, e.InvolvedObject.UID, e.LastTimestamp = of+"-"+message[:1], types.UID(of), metav1.NewTime(noon.Add(-ago))
		return e
	}
	b := newByHand(append(team(nil),
		refused("new", `pods "new-x1" is forbidden: ValidatingAdmissionPolicy 'metaparticle-gate' denied request: OptedOut: remove it`, time.Minute),
		refused("new", `admission webhook "pods.metaparticle.io" denied the request: BadAnnotation: old news`, time.Hour),
		refused("other", `exceeded quota: pods`, time.Minute),
		refused("web-1", `admission webhook "pods.metaparticle.io" denied the request: BadAnnotation: an older template`, time.Minute),
		refused("done-1", `admission webhook "pods.metaparticle.io" denied the request: BadAnnotation: it has all pods since`, time.Minute),
		refused("gone", `admission webhook "pods.metaparticle.io" denied the request: BadAnnotation: deleted`, time.Minute),
		set("new", "till", "7", 1), set("web-1", "web", "1", 1), set("web-2", "web", "2", 0), set("done-1", "done", "1", 0))...)
	both := stdio{out: &b.out, err: &b.out}
	_, err := screen{std: both, now: func() time.Time { return noon }}.run(t.Context(), cluster{WithWatch: b}, "shop", nil)
	require.NoError(t, err)
	const note = "note: pods of Deployment/till in shop are refused: OptedOut: remove it (60s ago)\n"
	assert.True(t, strings.HasSuffix(b.out.String(), "Serving\n"+note), "below the table: %s", b.out.String())
	b.out.Reset()

	b.err.Reset()
	for i := range mostRefusals + 3 {
		require.NoError(t, b.Create(t.Context(), refused(fmt.Sprint("many-", i), "metaparticle- "+strings.Repeat("x", 5000), time.Second)))
		require.NoError(t, b.Create(t.Context(), set(fmt.Sprint("many-", i), fmt.Sprint("many-", i), "1", 1)))
	}
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
	assert.Equal(t, mostRefusals+1, strings.Count(b.err.String(), "note: "))
	assert.Less(t, b.err.Len(), (mostRefusals+1)*(mostRefusal+200))
}

func TestStatusCommandShowsSlotsDespiteUnreadableEvents(t *testing.T) {
	b := newByHand(team(nil)...)
	b.WithWatch = interceptor.NewClient(b.WithWatch, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if _, ok := list.(*corev1.EventList); ok {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, "", nil)
			}
			return c.List(ctx, list, options...)
		},
	})
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
	assert.Contains(t, b.out.String(), "held by a")
	assert.Contains(t, b.err.String(), "note: no handovers: read events")

	b = newByHand()
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
	assert.Equal(t, "no slots\n", b.err.String())
}

func TestStatusCommandWithWatchPrintsOnlyChangedSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newByHand(append(team(nil), slotLease("lock.a", "", nil))...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan int)
		go func() {
			v := screen{words: true, std: stdio{out: &b.out, err: &b.err}, watch: true, now: func() time.Time { return noon }}
			code, err := v.run(ctx, cluster{WithWatch: b}, "shop", nil)
			done <- exitCode(code, err, &b.err)
		}()
		shown := func() string {
			<-time.After(time.Second)
			synctest.Wait()
			text := b.out.String()
			b.out.Reset()
			return text
		}
		first := shown()
		assert.Contains(t, first, "held by a, for 10m")
		assert.Contains(t, first, "lock.a: lock, nobody holds")
		l := b.lease(t, slot)
		l.Spec.RenewTime = &metav1.MicroTime{Time: noon}
		require.NoError(t, b.Update(ctx, l))
		assert.Empty(t, shown(), "a renewal is no change")

		b.after(t, time.Millisecond, slot, "b")
		next := shown()
		assert.Contains(t, next, "held by b, for 10m")
		assert.NotContains(t, next, "lock.a")
		require.NoError(t, b.Delete(ctx, waiting("c")))
		assert.NotContains(t, shown(), "standby  c")
		cancel()
		assert.Equal(t, exitOK, <-done)
		assert.Empty(t, b.err.String())
	})
}

func TestStatusCommandDerivesHandoversFromEvents(t *testing.T) {
	holds := "this pod holds lock.a (token 1), lock.b (token 2)"
	for name, c := range map[string]struct {
		events []*corev1.Event
		want   []string
	}{
		"none":           {nil, nil},
		"another slot":   {[]*corev1.Event{told(0, "a", "Acquired", "this pod holds lock.a.b (token 1)")}, nil},
		"one of several": {[]*corev1.Event{told(0, "a", "Acquired", holds)}, []string{"acquired; no Event tells of a release before it"}},
		"in one second": {[]*corev1.Event{
			told(0, "b", "Acquired", holds), told(0, "a", "Released", "lock.a is free again"), told(0, "a", "PodDeleted", "draining to hand over lock.a: this pod is being deleted"),
		}, []string{"from a (PodDeleted), within 1s"}},
		"child ended": {[]*corev1.Event{told(9*time.Second, "a", "Released", "lock.a is free again"), told(0, "b", "Acquired", holds)}, []string{"from a, 9s after its release"}},
		"child failed": {[]*corev1.Event{told(9*time.Second, "a", "Released", "lock.a is free again: the application has failed"), told(0, "b", "Acquired", holds)},
			[]string{"from a (the application has failed), 9s after its release"}},
		"a pause that went on": {[]*corev1.Event{
			told(9*time.Second, "a", "Paused", "the slot lock.a is paused by hand: this pod goes on, and no other takes the slot"),
			told(8*time.Second, "a", "Released", "lock.a is free again"), told(0, "b", "Acquired", holds),
		}, []string{"from a, 8s after its release"}},
		"most": {[]*corev1.Event{
			told(5*time.Second, "a", "Acquired", holds), told(4*time.Second, "b", "Acquired", holds),
			told(3*time.Second, "c", "Acquired", holds), told(2*time.Second, "d", "Acquired", holds),
		}, []string{"took over after the lease of c expired", "took over after the lease of b expired", "took over after the lease of a expired"}},
		"a lost hold": {[]*corev1.Event{told(9*time.Second, "a", "Acquired", holds), told(5*time.Second, "a", "Lost", "draining: lock.a may be lost"), told(0, "b", "Acquired", holds)},
			[]string{"took over after the lease of a expired (Lost)", "acquired; no Event tells of a release before it"}},
		"again": {[]*corev1.Event{told(9*time.Second, "a", "Acquired", holds), told(5*time.Second, "a", "Acquired", holds)},
			[]string{"again, after its own lease expired", "acquired; no Event tells of a release before it"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := objects{leases: map[types.UID]*coordinationv1.Lease{"l": slotLease("lock.a", "", nil)}, events: map[types.UID]*corev1.Event{}}
			for _, e := range c.events {
				o.events[e.UID] = e
			}
			var texts []string
			for _, h := range o.slots(nil, noon)[0].Handovers {
				texts = append(texts, handoverText(h))
			}
			assert.Equal(t, c.want, texts)
		})
	}
}

// catalog returns the Leases of a read-write lock, and three pods that claim the lock. The argument
// has the holders of the intent and of the first slots.
func catalog(holders ...string) (there []client.Object) {
	slots := api.Claim{Kind: api.RWLock, Name: "catalog", Size: 2}.Slots(api.Workload{})
	for i, slot := range slots {
		holder, written := "", map[string]string(nil)
		if i < len(holders) && holders[i] != "" {
			holder, written = holders[i], map[string]string{api.TokenAnnotation: strconv.Itoa(98 + i)}
		}
		there = append(there, slotLease(slot, holder, written))
	}
	for _, name := range []string{"a", "b", "c"} {
		there = append(there, localPod(name, corev1.ConditionTrue, slots...))
	}
	return there
}

// written returns the argument of [catalog] for a lock with one writer: the pod "by" holds the
// intent and all slots.
func written(by string) (holders []string) {
	for range 1 + api.RWLockSlots {
		holders = append(holders, by)
	}
	return holders
}

func TestStatusCommandShowsReadersOrWriterOfLock(t *testing.T) {
	for name, c := range map[string]struct {
		holders []string
		shown   string
	}{
		"free": {nil, `rwlock.catalog: rwlock, 0 read, nobody writes, 3 standbys
  standby  a  Ready  LocalAPI: the program asks by the local API
  standby  b  Ready  LocalAPI: the program asks by the local API
  standby  c  Ready  LocalAPI: the program asks by the local API
`},
		"two readers": {[]string{"", "b", "a"}, `rwlock.catalog: rwlock, 2 read, nobody writes, 1 standby
  reader   b  rwlock.catalog.0, for 10m, token 99, renewed 3s ago, serves for 9m
  reader   a  rwlock.catalog.1, for 10m, token 100, renewed 3s ago, serves for 9m
  standby  c  Ready  LocalAPI: the program asks by the local API
`},
		"a writer that waits": {[]string{"a", "a", "b"}, `rwlock.catalog: rwlock, 1 read, a waits to write, 1 standby
  waits    a  has 1 of 16 slots, for 10m, token 99, renewed 3s ago, serves for 9m
  reader   b  rwlock.catalog.1, for 10m, token 100, renewed 3s ago, serves for 9m
  standby  c  Ready  LocalAPI: the program asks by the local API
`},
		"a writer": {written("c"), `rwlock.catalog: rwlock, 0 read, c writes, 2 standbys
  writer   c  for 10m, token 114, renewed 3s ago, serves for 9m
  standby  a  Ready  LocalAPI: the program asks by the local API
  standby  b  Ready  LocalAPI: the program asks by the local API
`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newByHand(catalog(c.holders...)...)
			assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
			assert.Equal(t, c.shown, b.out.String())
		})
	}
}

func TestExplainCommandSummarizesAWritersSlots(t *testing.T) {
	asks := map[string]string{api.LocalAnnotation: "rwlock/catalog=2"}
	shown := answer(t, true, "Deployment/biller", append(catalog("a", "a", "b"), deployment(asks, asks)...)...)
	assert.Contains(t, shown, `slots:
  rwlock.catalog.0       held by a, token 99,`)
	assert.NotContains(t, shown, "rwlock.catalog.9")
	assert.Contains(t, shown, "a  holds the intent of rwlock.catalog and 1 of its 16 slots")
	assert.Contains(t, shown, "b  holds rwlock.catalog.1")
	shown = answer(t, true, "Deployment/biller", append(catalog(written("c")...), deployment(asks, asks)...)...)
	assert.Contains(t, shown, "c  holds rwlock.catalog to write")
}

func TestPauseCommandPausesEachSlotOfRWLocks(t *testing.T) {
	b := newByHand(catalog("", "b")...)
	assert.Equal(t, exitOK, b.pause(t, pausing{pause: api.PauseHold}, "rwlock/catalog"))
	assert.Contains(t, b.out.String(), "rwlock.catalog.intent: paused; nobody holds")
	assert.Contains(t, b.out.String(), "rwlock.catalog.0: paused; b holds, and goes on")
	assert.Contains(t, b.out.String(), "rwlock.catalog.15: paused; nobody holds")
}

func TestYieldCommandRefusesALockWithSeveralReaders(t *testing.T) {
	b := newByHand(catalog("", "b", "a")...)
	assert.Equal(t, exitRefused, b.yield(t, yielding{}, "rwlock/catalog"))
	assert.Contains(t, b.err.String(), "2 pods hold slots of rwlock/catalog: name one of pod/b, pod/a")
}

// After a writer's release, the lock may stay free. So the command waits only for the release.
func TestYieldCommandEndsWhenTheWriterReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newByHand(catalog(written("c")...)...)
		b.after(t, 2*time.Second, "rwlock.catalog.intent", "")
		assert.Equal(t, exitOK, b.yield(t, yielding{}, "rwlock/catalog"))
		assert.Equal(t, "rwlock.catalog.intent: c has released, 2s after the request\n", b.out.String())
	})
}

func TestStatusCommandWithWatchShowsChangedLockCompletely(t *testing.T) {
	of := func(slot string) view.Slot { return view.Slot{Namespace: "shop", Slot: slot, Kind: view.KindOf(slot)} }
	all := []view.Slot{of("lock.a"), of("rwlock.b.0"), of("rwlock.b.intent"), of("rwlock.c.0")}
	assert.Equal(t, all[1:3], whole(all[2:3], all))
	assert.Equal(t, all[:1], whole(all[:1], all))
}
