// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/console/view"
)

func TestUnencodableSlotDoesNotHideOtherSlots(t *testing.T) {
	s, server := serving(t)
	r := connect(t, server, "")
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "x")}, ""))
	r.next()
	evil := slot("lock.b", "x")
	evil.Holder.Since = new(time.Unix(253402300800, 0)) // in the year 10000
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "y"), evil}, ""))
	assert.Equal(t, []string{"shop/lock.a=y", "shop/lock.b=" + unreadable}, r.next().keys(t))
}

// full returns n slots of a namespace, each with a text of the given length.
func full(namespace string, n, length int) []view.Slot {
	all := make([]view.Slot, n)
	for i := range all {
		all[i] = slot(fmt.Sprintf("lock.%05d", i), "x")
		all[i].Namespace, all[i].Yield = namespace, strings.Repeat("y", length)
	}
	return all
}

func TestLargeNamespaceNeverHidesSlotsOfOtherNamespaces(t *testing.T) {
	for name, c := range map[string]struct {
		slots           []view.Slot
		greedy, modest  int
		handovers, left bool
	}{
		"a small state":              {append(full("greedy", 100, 1000), full("modest", 10, 1000)...), 100, 10, true, false},
		"many slots":                 {append(full("greedy", 40_000, 1000), full("modest", 10, 1000)...), 5000, 10, false, true},
		"two large namespaces":       {slices.Concat(full("greedy", 20_000, 1000), full("vast", 20_000, 1000), full("modest", 10, 1000)), 2000, 10, false, true},
		"one slot that is too large": {append(full("greedy", 1, maxState+1), full("modest", 10, 1000)...), 0, 10, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range c.slots {
				c.slots[i].Handovers = []view.Handover{{Pod: "b", At: noon}, {Pod: "a", At: noon}}
			}
			rows, left := rowsOf(c.slots)
			bytes, of := 0, map[string]int{}
			for key, row := range rows {
				namespace, _, _ := strings.Cut(key, "/")
				of[namespace]++
				bytes += len(row)
				if namespace == "modest" {
					assert.Contains(t, string(row), `"pod":"a"`)
				} else {
					assert.Equal(t, c.handovers, strings.Contains(string(row), `"pod":"a"`))
				}
			}
			assert.LessOrEqual(t, bytes, maxState)
			assert.Equal(t, c.modest, of["modest"])
			assert.GreaterOrEqual(t, of["greedy"], c.greedy)
			assert.Equal(t, c.left, left > 0)
			assert.Equal(t, len(c.slots), left+len(rows))
		})
	}
}

func TestSlotJSONNeverExceedsTheConsolesSizeEstimate(t *testing.T) {
	odd := strings.Repeat(`<>&"\é`, 50)
	since := time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC)
	s := view.Slot{
		Namespace: "shop", Slot: "lock.a", Kind: "lock", Paused: view.Slot{}.Paused, Yield: odd, Stamp: odd, Successor: odd, Done: []string{odd, odd},
		Opened: 32, Failures: map[string]int{odd: 1_000_000}, Transitions: 2_147_483_647, Missing: true,
		Holder: &view.Holder{
			Pod: odd, Identity: odd, Workload: odd, Hold: odd, Token: odd, Gone: true, Deleted: true, Since: &since, Renewed: &since,
			ServingSince: &since, SilentSince: &since, Expired: true,
		},
	}
	for range 50 {
		seconds := 1e15 + 0.5
		s.Standbys = append(s.Standbys, &view.Standby{Pod: odd, Ready: false, Reason: odd, Message: odd, Program: true, WaitsSince: &since})
		s.Handovers = append(s.Handovers, view.Handover{At: since, Pod: odd, From: odd, Reason: odd, Cause: odd, Seconds: &seconds})
	}
	assert.Less(t, len(encode(s)), sizeOf(s))
	assert.Less(t, len(encode(view.Slot{})), sizeOf(view.Slot{}))
}

func TestConsolePageShowsTheNumberOfOmittedSlots(t *testing.T) {
	for _, c := range []struct {
		trouble string
		left    int
		want    string
	}{
		{"", 0, ""}, {"old", 0, "old"},
		{"", 3, "Slots that are not shown, because their namespace has too many or too large ones: 3."},
		{"Old.", 1, "Old. Slots that are not shown, because their namespace has too many or too large ones: 1."},
	} {
		assert.Equal(t, c.want, sentences(c.trouble, c.left))
	}
}
