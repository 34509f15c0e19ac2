// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"maps"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	readPath  = "/v1/rwlock/c/holds?as=reader&heartbeat=5m"
	writePath = "/v1/rwlock/c/holds?as=writer&heartbeat=5m"
)

// newRWServer returns an API server with the Leases of the read-write lock c, and with other Leases.
func newRWServer(t *testing.T, others ...string) *server {
	return newServer(t, append(api.Claim{Kind: api.RWLock, Name: "c", Size: 1}.Slots(api.Workload{}), others...)...)
}

// heldOf returns the number of Leases that name the pod.
func (s *server) heldOf(name string) (n int) {
	s.Do(func() {
		for _, lease := range s.Names("Lease") {
			if l, _ := s.Objects.Lease(lease); api.PodOf(l.Holder) == name {
				n++
			}
		}
	})
	return n
}

// The function "after" waits for the time d, and then until all goroutines are blocked.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestReadersShareTheLockButWritersDoNot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newRWServer(t)
		first, second := start(t, s, "first", "rwlock/c=2"), start(t, s, "second", "rwlock/c=2")
		third, writer := start(t, s, "third", "rwlock/c=2"), start(t, s, "writer", "rwlock/c=2")
		code, one := first.call(http.MethodPost, readPath)
		require.Equal(t, http.StatusCreated, code, one)
		assert.Equal(t, "reader", one["as"])
		code, two := second.call(http.MethodPost, readPath)
		require.Equal(t, http.StatusCreated, code, two)
		code, body := third.call(http.MethodPost, readPath)
		assert.Equal(t, http.StatusConflict, code, "two pods read already: %v", body)

		code, body = writer.call(http.MethodPost, writePath)
		assert.Equal(t, http.StatusConflict, code, body)
		assert.Equal(t, "Busy", body["reason"])
		after(time.Second)
		assert.Zero(t, s.heldOf("writer"), "a bid that failed keeps nothing")

		writes := writer.stream(http.MethodPost, "/v1/rwlock/c/holds?as=writer&stream=true&wait=1h")
		after(2 * time.Minute)
		assert.Empty(t, writes.states())
		first.call(http.MethodDelete, "/v1/rwlock/c/holds/"+one["hold"].(string))
		after(time.Second)
		assert.Empty(t, writes.states(), "the second pod reads")
		reads := third.stream(http.MethodPost, "/v1/rwlock/c/holds?as=reader&stream=true&wait=1h")
		after(time.Minute)
		assert.Empty(t, reads.states(), "no reader passes a writer that waits")
		second.call(http.MethodDelete, "/v1/rwlock/c/holds/"+two["hold"].(string))
		after(time.Second)
		assert.Equal(t, []string{"held"}, writes.states())
		assert.Equal(t, 1+api.RWLockSlots, s.heldOf("writer"))
		writes.mu.Lock()
		line := writes.text.String()
		writes.mu.Unlock()
		assert.Contains(t, line, `"as":"writer"`)
		after(time.Minute)
		assert.Empty(t, reads.states())

		number := numberIn(writes)
		writer.call(http.MethodDelete, "/v1/rwlock/c/holds/"+number)
		after(time.Second)
		assert.Equal(t, []string{"held"}, reads.states())
		assert.Zero(t, s.heldOf("writer"))
	})
}

func TestWriterReleasesAllSlotsWhenItStopsWaiting(t *testing.T) {
	ends := map[string]func(writer *pod, waits *lines){
		"its wait ends": func(*pod, *lines) { after(4 * time.Minute) },
		"it hangs up":   func(_ *pod, waits *lines) { waits.end() },
		"its pod stops": func(writer *pod, _ *lines) { close(writer.stop) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newRWServer(t)
				first, writer := start(t, s, "first", "rwlock/c=2"), start(t, s, "writer", "rwlock/c=2")
				code, body := first.call(http.MethodPost, readPath)
				require.Equal(t, http.StatusCreated, code, body)
				soon := writer.stream(http.MethodPost, writePath+"&wait=7m")
				after(5 * time.Second)
				assert.NotZero(t, s.heldOf("writer"))
				soon.end()
				after(time.Second)
				assert.Zero(t, s.heldOf("writer"), "the agent still watches the Leases")
				waits := writer.stream(http.MethodPost, writePath+"&wait=7m")
				after(4 * time.Minute)
				assert.NotZero(t, s.heldOf("writer"), "the writer has the intent at least")
				code, _ = first.call(http.MethodPut, "/v1/rwlock/c/holds/"+body["hold"].(string))
				require.Equal(t, http.StatusOK, code)
				end(writer, waits)
				after(time.Second)
				assert.Zero(t, s.heldOf("writer"))
				other := start(t, s, "other", "rwlock/c=2")
				code, body = other.call(http.MethodPost, readPath)
				assert.Equal(t, http.StatusCreated, code, body)
			})
		})
	}
}

func TestPodWithReaderHoldCannotBidAsWriter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newRWServer(t)
		p := start(t, s, "first", "rwlock/c=2")
		_, body := p.call(http.MethodPost, readPath)
		began := time.Now()
		code, refused := p.call(http.MethodPost, writePath+"&wait=1h")
		assert.Equal(t, http.StatusConflict, code)
		assert.Equal(t, "NoUpgrade", refused["reason"])
		assert.Less(t, time.Since(began), time.Second)
		p.call(http.MethodDelete, "/v1/rwlock/c/holds/"+body["hold"].(string))
		code, body = p.call(http.MethodPost, writePath+"&wait=1h")
		assert.Equal(t, http.StatusCreated, code, body)
		code, refused = p.call(http.MethodPost, readPath)
		assert.Equal(t, http.StatusConflict, code, "a writer's pod has one hold")
		assert.Equal(t, "Busy", refused["reason"])
	})
}

func TestPausedSlotPreventsWriterFromAcquiringAnySlot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newRWServer(t)
		s.Edit("rwlock.c.7", pauseLease)
		reader, writer := start(t, s, "reader", "rwlock/c=2"), start(t, s, "writer", "rwlock/c=2")
		waits := writer.stream(http.MethodPost, writePath+"&wait=1h")
		after(time.Minute)
		assert.Zero(t, s.heldOf("writer"), "the writer would keep the readers out in vain")
		code, body := reader.call(http.MethodPost, readPath)
		assert.Equal(t, http.StatusCreated, code, body)
		reader.call(http.MethodDelete, "/v1/rwlock/c/holds/"+body["hold"].(string))
		s.Edit("rwlock.c.7", resumeLease)
		<-waits.done
		assert.Equal(t, 1+api.RWLockSlots, s.heldOf("writer"))
	})
}

func TestRWLockStateListsIntentAndReaderSlots(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newRWServer(t)
		p, other := start(t, s, "first", "rwlock/c=2"), start(t, s, "other", "rwlock/c=2")
		_, body := p.call(http.MethodPost, writePath)
		require.Equal(t, "held", body["state"])
		for _, seen := range []*pod{p, other} {
			_, state := seen.call(http.MethodGet, "/v1/rwlock/c")
			slots := state["slots"].([]any)
			require.Len(t, slots, 3, "the intent, and as many slots as the size says")
			for _, slot := range slots {
				assert.Equal(t, "held", slot.(map[string]any)["state"], slot)
				assert.Equal(t, "first", slot.(map[string]any)["holder"])
			}
		}
	})
}

func pauseLease(l *kube.Lease) {
	l.Annotations = maps.Clone(l.Annotations)
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	l.Annotations[api.PausedAnnotation] = ""
}

func resumeLease(l *kube.Lease) { delete(l.Annotations, api.PausedAnnotation) }

func TestSecondWriterOfAPodAwaitsTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newRWServer(t), "pod", "rwlock/c=2")
		code, body := p.call(http.MethodPost, writePath+"&heartbeat=5m")
		require.Equal(t, http.StatusCreated, code, body)
		waits := p.stream(http.MethodPost, writePath+"&wait=1h&stream=true")
		after(time.Minute)
		assert.Empty(t, waits.states())
		p.call(http.MethodDelete, "/v1/rwlock/c/holds/"+body["hold"].(string))
		after(time.Second)
		assert.Equal(t, []string{"held"}, waits.states())
	})
}
