// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

const (
	// handover bounds a release, its watch event and an acquisition, which
	// take tens of milliseconds; the rest is a machine that five tests share.
	handover = 5 * time.Second
	// takeover bounds what follows an expiry in the same way: a lease, counted
	// from the last renewal.
	takeover = shortLease + handover
)

// blow is something that ends a hold, or does not.
type blow struct {
	name string
	// vacancy is for how long nobody runs after it at most.
	vacancy time.Duration
	strike  func(*space, *corev1.Pod)
	// survivable: the application may run on.
	survivable bool
}

func blows() []blow {
	kill := func(roles ...role) func(*space, *corev1.Pod) {
		return func(s *space, pod *corev1.Pod) {
			for _, r := range roles {
				s.signal(pod, r, unix.SIGKILL)
			}
		}
	}
	return []blow{
		{"pod deleted", handover, (*space).deletePod, false},
		{"child killed", handover, kill(child), false},
		{"shim killed", handover, kill(shim), false},
		// A new agent resumes the hold, unless it sits in a back-off.
		{"agent killed", takeover, kill(agent), true},
		{"agent and shim killed", takeover, kill(agent, shim), false},
		// It is above both containers, so the agent may die with the child.
		{"containerd's shim killed", takeover, kill(runtimeShim), true},
	}
}

func (s *space) deletePod(pod *corev1.Pod) {
	s.Helper()
	err := s.client.CoreV1().Pods(s.name).Delete(s.Context(), pod.Name, metav1.DeleteOptions{})
	require.NoError(s, err)
}

// Three replicas on three nodes; blow after blow to the holder. Two at once
// are looked for in the whole record when the test ends.
func TestNeverTwoUnderPodDeletionsAndKills(t *testing.T) {
	needLab(t, "it kills processes of pods")
	t.Parallel()
	s := newSpace(t)
	a := singleton("steady")
	// An orphan of its own session, deaf to SIGTERM, is part of the child.
	a.args = []string{"-grandchild", "-stop-delay=200ms"}
	s.deploy(a)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	worst := map[string]time.Duration{}
	counts := map[string]int{}
	for end := time.Now().Add(*soak); time.Now().Before(end); {
		// Each in turn, in another order every time.
		all := blows()
		for _, i := range random.Perm(len(all)) {
			worst[all[i].name] = max(worst[all[i].name], s.endure(a, all[i]))
			counts[all[i].name]++
		}
	}
	for _, b := range blows() {
		t.Logf("%-26s %3d times, nobody for %v at most", b.name, counts[b.name], worst[b.name].Round(time.Millisecond))
	}
}

// endure deals a blow to the holder, waits until one runs again, and returns
// for how long nobody did.
func (s *space) endure(a app, b blow) time.Duration {
	s.Helper()
	before := s.awaitRunning(a, takeover)
	victim := s.pod(before.Pod)
	require.NotNil(s, victim)
	killed := find(victim, agent)
	b.strike(s, victim)
	struck := time.Now() // what the killed agent renewed, it renewed before
	what := fmt.Sprintf("one runs again after %s in %s", b.name, victim.Name)
	survived := false
	s.await(b.vacancy+takeover, what, func() bool {
		survived = b.survivable && s.resumed(a, before, killed, struck)
		return survived || s.after(a, before) != nil
	})
	if survived {
		return 0
	}
	vacancy := s.vacancyAfter(a, before)
	assert.LessOrEqual(s, vacancy, b.vacancy, what)
	if s.pod(victim.Name) != nil && s.awaitRunning(a, handover).Pod != victim.Name {
		// What was killed comes back after a back-off that grows; a fresh pod has none.
		s.await(startTimeout, victim.Name+" can be asked to stop", func() bool {
			now := s.pod(victim.Name)
			return now == nil || now.DeletionTimestamp != nil || hears(find(now, shim), unix.SIGTERM)
		})
		err := s.client.CoreV1().Pods(s.name).Delete(s.Context(), victim.Name, metav1.DeleteOptions{})
		require.NoError(s, ignoreNotFound(err))
	}
	s.awaitGated(a)
	s.awaitRunning(a, takeover)
	return vacancy
}

// hears tells whether a process has a handler for a signal. The kernel drops what a
// container's first process does not handle: one that has just been started and is
// asked to stop then uses up its whole grace, with the gate or without it.
func hears(p *process, signal unix.Signal) bool {
	if p == nil {
		return false
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	_, caught, _ := strings.Cut(string(status), "SigCgt:\t")
	caught, _, _ = strings.Cut(caught, "\n")
	mask, err := strconv.ParseUint(caught, 16, 64)
	return err == nil && mask&(1<<(signal-1)) != 0
}

// resumed tells whether another agent process than the killed one has renewed
// the hold of an application that runs on. (The same process may get another
// parent: who dies with containerd's shim outlives it a little.)
func (s *space) resumed(a app, before *record.Process, killed *process, since time.Time) bool {
	now, holder := s.running(a.name), s.holder(deploymentSlot(a.name))
	if now == nil || now.ID != before.ID || holder == nil || holder.Name != before.Pod {
		return false
	}
	fresh := find(holder, agent)
	return fresh != nil && killed != nil && fresh.pid != killed.pid && s.lease(deploymentSlot(a.name)).Spec.RenewTime.After(since)
}

// after is the application that runs now, if it is another than before.
func (s *space) after(a app, before *record.Process) *record.Process {
	if now := s.running(a.recordName()); now != nil && now.ID != before.ID {
		return now
	}
	return nil
}

// vacancyAfter is how long nobody ran between a process and the next; its
// descendants count as part of it.
func (s *space) vacancyAfter(a app, before *record.Process) time.Duration {
	r := s.record(a.recordName())
	next := slices.IndexFunc(r, func(p record.Process) bool { return p.Parent == "" && p.Start > before.Start })
	if next < 0 {
		return 0
	}
	last := before.Start
	for _, p := range r[:next] {
		last = max(last, p.Last)
	}
	return r[next].Start - last
}
