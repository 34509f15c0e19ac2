// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestConsoleDropsTimesThatJSONCannotEncode(t *testing.T) {
	late, early := time.Unix(253402300800, 0), time.Date(0, 12, 31, 0, 0, 0, 0, time.UTC)
	annotated := func(since string) State {
		return State{Leases: []*coordinationv1.Lease{lease("lock.a", "a", map[string]string{api.ServingAnnotation: since})}}
	}
	times := func(at time.Time) State {
		l, e, p := lease("lock.a", "a", nil), event(1, "a", api.ReasonAcquired, "lock.a"), gated("b", "lock.a")
		l.Spec.AcquireTime, l.Spec.RenewTime = &metav1.MicroTime{Time: at}, &metav1.MicroTime{Time: at}
		e.LastTimestamp, p.Status.StartTime = metav1.Time{Time: at}, &metav1.Time{Time: at}
		e.CreationTimestamp = e.LastTimestamp
		return State{Leases: []*coordinationv1.Lease{l}, Events: []*corev1.Event{e}, Pods: []*corev1.Pod{p}}
	}
	for name, c := range map[string]struct {
		state State
		since int
	}{
		"a zone that JSON refuses":           {annotated("2026-11-23T00:00:00+24:00"), 2},
		"the year 0 in UTC":                  {annotated("0001-01-01T00:00:00+14:00"), 1},
		"the year 10000 in UTC":              {annotated("9999-12-31T23:59:59-14:00"), 1},
		"a Lease and an Event of year 10000": {times(late), 0},
		"a Lease of the year 0":              {times(early), 0},
		"good instants":                      {times(noon.In(time.FixedZone("", 25*3600))), 3},
	} {
		t.Run(name, func(t *testing.T) {
			slots := c.state.Slots(nil, 3)
			require.Len(t, slots, 1)
			_, err := json.Marshal(slots)
			require.NoError(t, err)
			shown := 0
			for _, at := range []*time.Time{slots[0].Holder.Since, slots[0].Holder.Renewed, slots[0].Holder.ServingSince} {
				if at != nil {
					shown++
					assert.Equal(t, time.UTC, at.Location())
				}
			}
			for _, p := range slots[0].Standbys {
				if p.WaitsSince != nil {
					shown++
				}
			}
			assert.Equal(t, c.since, shown)
		})
	}
}

func TestConsoleIgnoresEventsOfTheFuture(t *testing.T) {
	for name, c := range map[string]struct {
		ahead time.Duration
		write func(e *corev1.Event, at time.Time)
		shown bool
	}{
		"a clock that is ahead": {ahead, func(e *corev1.Event, at time.Time) { e.LastTimestamp = metav1.Time{Time: at} }, true},
		"a forged last time":    {ahead + time.Second, func(e *corev1.Event, at time.Time) { e.LastTimestamp = metav1.Time{Time: at} }, false},
		"a forged Event time":   {ahead + time.Second, func(e *corev1.Event, at time.Time) { e.EventTime = metav1.MicroTime{Time: at} }, false},
		"a forged series of Events": {ahead + time.Second, func(e *corev1.Event, at time.Time) {
			e.Series = &corev1.EventSeries{LastObservedTime: metav1.MicroTime{Time: at}}
		}, false},
		"the year 9999": {0, func(e *corev1.Event, _ time.Time) { e.LastTimestamp = metav1.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			forged := event(0, "ghost", api.ReasonAcquired, "this pod holds lock.a")
			c.write(forged, noon.Add(c.ahead))
			state := State{
				Leases: []*coordinationv1.Lease{lease("lock.a", "a", nil)}, Now: noon,
				Events: []*corev1.Event{forged, event(9, "a", api.ReasonAcquired, "this pod holds lock.a")},
			}
			pods := func() (all []string) {
				for _, h := range state.Slots(nil, 3)[0].Handovers {
					all = append(all, h.Pod)
				}
				return all
			}
			if c.shown {
				assert.Equal(t, []string{"ghost", "a"}, pods())
			} else {
				assert.Equal(t, []string{"a"}, pods())
			}
			state.Now = time.Time{}
			assert.Equal(t, []string{"ghost", "a"}, pods(), "the caller has no clock")
		})
	}
}

// texts calls the function "see" with each text of a JSON value.
func texts(value any, see func(key, text string)) {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if text, ok := inner.(string); ok {
				see(key, text)
			}
			texts(inner, see)
		}
	case []any:
		for _, inner := range v {
			if text, ok := inner.(string); ok {
				see("", text)
			}
			texts(inner, see)
		}
	}
}

func TestHostileClusterTextsBecomeShortSingleLines(t *testing.T) {
	evil := "\x1b[2Jlock.a\u202e\u2066\u200b\u2028\u2029\u0085\n\xff" + api.Draining
	for name, long := range map[string]string{"hostile": evil, "long": evil + strings.Repeat("é\xff", 100_000)} {
		t.Run(name, func(t *testing.T) {
			annotations := map[string]string{}
			for _, key := range []string{
				api.YieldAnnotation, api.StampAnnotation, api.SuccessorAnnotation, api.PausedAnnotation, api.DoneAnnotation,
				api.FailuresAnnotation, api.HoldAnnotation, api.TokenAnnotation, api.WorkloadAnnotation, api.OpenedAnnotation,
			} {
				annotations[key] = long
			}
			l := lease("lock.a", "", annotations)
			l.Spec.HolderIdentity = &long
			told := func(seconds int, reason string) *corev1.Event {
				e := event(seconds, long, reason, evil+" lock.a")
				e.InvolvedObject.UID = "uid"
				return e
			}
			p := gated("b", "lock.a", func(p *corev1.Pod) {
				p.Status.Conditions[0].Reason, p.Status.Conditions[0].Message = long, long
			})
			state := State{
				Leases: []*coordinationv1.Lease{l}, Pods: []*corev1.Pod{p},
				Events: []*corev1.Event{told(3, long), told(2, api.ReasonReleased), told(1, api.ReasonAcquired)},
			}
			slots := state.Slots(nil, 3)
			require.Len(t, slots, 1)
			require.Len(t, slots[0].Handovers, 1)
			require.NotEmpty(t, slots[0].Handovers[0].Cause)
			encoded, err := json.Marshal(slots)
			require.NoError(t, err)
			assert.Less(t, len(encoded), 16<<10)
			var all any
			require.NoError(t, json.Unmarshal(encoded, &all))
			texts(all, func(key, text string) {
				assert.True(t, utf8.ValidString(text), key)
				assert.False(t, strings.ContainsFunc(text, func(r rune) bool {
					return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
				}), "%s: %q", key, text)
				most := map[string]int{"message": MaxMessage, "cause": MaxMessage, "token": MaxWord, "hold": MaxWord, "stamp": MaxWord, "paused": MaxWord, "reason": MaxWord, "": maxDone}[key]
				if most == 0 {
					most = MaxIdentity
				}
				assert.LessOrEqual(t, len(text), most, key)
			})
		})
	}
}

func TestEventsWithOverlongMessagesAreIgnored(t *testing.T) {
	var names strings.Builder
	for i := range mostNamed + 1 {
		fmt.Fprintf(&names, "lock.a%d lock.a%d ", i, i)
	}
	for name, c := range map[string]struct {
		message string
		want    int
	}{
		"the longest message": {"lock.a " + strings.Repeat("x", MaxMessage-7), 1},
		"a longer message":    {"lock.a " + strings.Repeat("x", MaxMessage-6), 0},
		"too many slots":      {names.String(), mostNamed},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Len(t, historiesOf([]*corev1.Event{event(1, "a", api.ReasonAcquired, c.message)}, noon, 3), c.want)
		})
	}
}

// The function slotsIn returns at most mostNamed slots of a message, and returns each slot once.
func TestNumberOfSlotsPerEventMessageIsBounded(t *testing.T) {
	var message strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&message, "lock.%05x ", i)
	}
	slots := slotsIn(message.String())
	require.Len(t, slots, mostNamed)
	assert.Equal(t, "lock.0001f", slots[mostNamed-1])
	assert.Equal(t, []string{"lock.a", "lock.b"}, slotsIn("lock.a lock.b, lock.a"))
}

func TestSlotIsUnhealthyIfItsHolderStopsRenewing(t *testing.T) {
	serving := map[string]string{api.ServingAnnotation: noon.Format(time.RFC3339)}
	for name, c := range map[string]struct {
		seen   time.Duration
		paused string
		want   bool
	}{
		"a recent renewal":            {time.Second, "", true},
		"fewer than three durations":  {44 * time.Second, "", true},
		"three durations":             {45 * time.Second, "", false},
		"three durations by a pause":  {45 * time.Second, "hold", true},
		"a renewal of three days ago": {72 * time.Hour, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			l := lease("lock.a", "a", map[string]string{api.ServingAnnotation: serving[api.ServingAnnotation]})
			if c.paused != "" {
				l.Annotations[api.PausedAnnotation] = c.paused
			}
			l.UID, l.Spec.LeaseDurationSeconds = "lock-a", new(int32(15))
			// A renew time by the holder's own clock must decide nothing, even if that time is days
			// ago.
			l.Spec.RenewTime = &metav1.MicroTime{Time: noon.Add(-72 * time.Hour)}
			state := State{Leases: []*coordinationv1.Lease{l}, Pods: []*corev1.Pod{gated("a", "lock.a")}, Now: noon, Seen: map[types.UID]time.Time{"lock-a": noon.Add(-c.seen)}}
			assert.Equal(t, c.want, state.Slots(nil, 3)[0].Healthy())
		})
	}
}

// A tenant makes pods that claim thousands of slots each.
func TestClaimsOfThousandsOfSlotsTakeLittleMemory(t *testing.T) {
	var names []string
	for n := range mostClaimed {
		names = append(names, fmt.Sprintf("lock.n%d", n))
	}
	var s State
	for n := range 50 {
		s.Pods = append(s.Pods, gated(fmt.Sprintf("pod-%d", n), strings.Join(names, ",")))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	slots := s.Slots(nil, 3)
	runtime.ReadMemStats(&after)
	claims := 0
	for _, slot := range slots {
		claims += len(slot.Standbys)
	}
	require.Greater(t, claims, 10_000)
	assert.Less(t, (after.TotalAlloc-before.TotalAlloc)/uint64(claims), uint64(100), "bytes for each claim")
}

// A tenant makes pods without Leases, each of which claims other slots.
func TestFloodOfInventedSlotsHidesNoOtherSlot(t *testing.T) {
	s := State{Leases: []*coordinationv1.Lease{lease("lock.a", "a", nil)}}
	for n := range 20 {
		var names []string
		for i := range mostClaimed {
			names = append(names, fmt.Sprintf("lock.n%d-%d", n, i))
		}
		s.Pods = append(s.Pods, gated(fmt.Sprintf("pod-%d", n), strings.Join(names, ",")))
	}
	other := gated("honest", "lock.b")
	other.Namespace = "other"
	s.Pods = append(s.Pods, other, gated("standby", "lock.a"))
	shown := map[string]Slot{}
	for _, slot := range s.Slots(nil, 3) {
		shown[slot.Namespace+"/"+slot.Slot] = slot
	}
	assert.Len(t, shown, mostMissing+2)
	require.Contains(t, shown, "other/lock.b")
	require.Len(t, shown["shop/lock.a"].Standbys, 1)
	assert.Equal(t, "standby", shown["shop/lock.a"].Standbys[0].Pod)

	s.Pods = append(s.Pods, gated("late", "lock.c"))
	named := s.Slots([]string{"lock.c"}, 3)
	require.Len(t, named, 1, "a person who names a slot sees that slot")
	assert.Len(t, named[0].Standbys, 1)
}
