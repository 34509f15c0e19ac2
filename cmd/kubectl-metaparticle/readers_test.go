// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

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
			assert.Equal(t, exitOK, b.status(t, screen{}, "shop"))
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
