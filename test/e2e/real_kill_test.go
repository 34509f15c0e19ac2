// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// trial is a software that is being killed, again and again.
type trial struct {
	*families
	w    software
	a    app
	slot string
	// hangUp ends the client that writes to the journal.
	hangUp func()
}

// ends are the ways in which it is killed: more than ten.
func (t *trial) ends() []blow {
	// Asked to stop, a server may wait for its clients (PostgreSQL does).
	polite := func(strike func(*space, *corev1.Pod)) func(*space, *corev1.Pod) {
		return func(s *space, pod *corev1.Pod) {
			strike(s, pod)
			t.hangUp()
		}
	}
	main := func(signal unix.Signal) func(*space, *corev1.Pod) {
		return func(s *space, pod *corev1.Pod) { s.signalMain(pod, signal) }
	}
	named := slices.DeleteFunc(blows(), func(b blow) bool { return b.name == "child killed" }) // knows the test's own by name
	return append(named,
		blow{"asked to stop", handover, polite(main(unix.SIGTERM)), false},
		blow{"main process killed", handover, main(unix.SIGKILL), false},
		blow{"kubectl exec kill 1", handover, polite(func(s *space, pod *corev1.Pod) {
			s.mustKubectl("", "exec", pod.Name, "-c", "app", "--", "sh", "-c", "kill 1")
		}), false},
		blow{"slot stolen", handover, t.lose, false},
		blow{"yield", handover, func(s *space, pod *corev1.Pod) { s.mustSignal(pod, agent, unix.SIGUSR1) }, false},
		// The token dies with the pod object, so nobody can release.
		blow{"deleted by force", takeover, func(s *space, pod *corev1.Pod) {
			now := int64(0)
			err := s.client.CoreV1().Pods(s.name).Delete(s.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
			require.NoError(s, err)
		}, false},
	)
}

// lose takes the slot away, and gives it back when the application is dead.
func (t *trial) lose(*space, *corev1.Pod) {
	t.steal(t.slot)
	t.await(takeover, "nothing of "+t.w.name+" lives", func() bool {
		family, _ := t.living()
		return family == nil
	})
	t.giveBack(t.slot)
}

// survives deploys two replicas and kills whatever there is to kill, in an
// order that is another one every time.
func (w software) survives(t *testing.T) {
	s := newSpace(t)
	var volume corev1.VolumeSource
	if w.data != "" {
		volume = s.claimVolume(w)
	}
	a := app{name: w.name, replicas: 2, annotations: claim(api.SingletonAnnotation, "true"), edit: w.template(t, volume)}
	tr := &trial{families: s.families(w.name), w: w, a: a, slot: deploymentSlot(w.name)}
	s.create(a)
	tr.awaitServing("it was deployed", nil)
	s.awaitGated(a)
	tr.w.journal.begin(tr)

	ends := tr.ends()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, i := range rand.New(rand.NewPCG(seed, seed)).Perm(len(ends)) {
		tr.endure(ends[i])
	}
	if w.check != nil {
		w.check(tr)
	}
	tr.neverTwo()
	families := tr.all()
	t.Logf("%d families, of %v", len(families), families[len(families)-1].Programs)
	require.Greater(t, len(families), 10)
}

// awaitServing waits until one runs and serves; another than before.
func (t *trial) awaitServing(what string, before *witness.Family) {
	t.Helper()
	t.await(serveTimeout, t.w.name+" serves again after "+what, func() bool {
		now, pod := t.living()
		return now != nil && pod != nil && (before == nil || now.Start != before.Start) && t.w.serves(t.space, pod)
	})
}

// endure deals a blow to the holder and waits until one runs again, serves, and
// has lost nothing.
func (t *trial) endure(b blow) {
	t.Helper()
	before, victim := t.busy()
	killed := find(victim, agent)
	b.strike(t.space, victim)
	struck := time.Now() // what the killed agent renewed, it renewed before
	what := fmt.Sprintf("%s in %s", b.name, victim.Name)
	survived := false
	t.await(serveTimeout, "one runs again after "+what, func() bool {
		survived = b.survivable && t.runsOn(before, victim, killed, struck)
		now, _ := t.living()
		return survived || (now != nil && now.Start != before.Start)
	})
	if survived {
		before = nil
	}
	t.awaitServing(what, before)
	t.hangUp()
	t.w.journal.check(t)
	if before != nil {
		t.Logf("%-24s nobody for %v", b.name, t.vacancyAfter(before).Round(time.Millisecond))
	}
	// What was killed comes back after a back-off that grows; a fresh pod has none.
	if _, holder := t.living(); holder != nil && holder.UID != victim.UID {
		err := t.client.CoreV1().Pods(t.name).Delete(t.Context(), victim.Name, metav1.DeleteOptions{})
		require.NoError(t, ignoreNotFound(err))
	}
	t.awaitGated(t.a)
	t.awaitServing(what, nil)
}

// busy is the application that lives, with a client that writes to its journal.
// A machine that starves may take the slot from it at any time; then it is the
// next one.
func (t *trial) busy() (family *witness.Family, pod *corev1.Pod) {
	t.Helper()
	t.await(serveTimeout, t.w.name+" serves a client", func() bool {
		var ok bool
		if family, pod = t.living(); pod != nil {
			t.hangUp, ok = t.w.journal.write(t.space, pod)
		}
		return ok
	})
	return family, pod
}

// runsOn tells whether another agent than the killed one renewed the hold of a
// family that lives.
func (t *trial) runsOn(before *witness.Family, victim *corev1.Pod, killed *process, since time.Time) bool {
	now, holder := t.living()
	if now == nil || now.Start != before.Start || holder == nil || t.holder(t.slot) == nil {
		return false
	}
	fresh := find(victim, agent)
	return fresh != nil && killed != nil && fresh.pid != killed.pid && t.lease(t.slot).Spec.RenewTime.After(since)
}

// vacancyAfter is how long nobody ran between a family and the next.
func (t *trial) vacancyAfter(before *witness.Family) time.Duration {
	all := t.all()
	i := slices.IndexFunc(all, func(f witness.Family) bool { return f.Start == before.Start })
	if i < 0 || i+1 == len(all) {
		return 0
	}
	return all[i+1].Start - all[i].End
}

// mainOf is the application's first process: under a gate the shim's child,
// without one the container's first.
func mainOf(pod *corev1.Pod) *process {
	all := processes(pod)
	for _, p := range all {
		above, ok := read(filepath.Join("/proc", fmt.Sprint(p.parent)))
		if !ok || p.role == "pause" || p.role == shim || p.role == agent {
			continue
		}
		gated := pod.Labels[api.GatedLabel] == api.Gated
		if (gated && above.role == shim) || (!gated && above.role == runtimeShim) {
			return &p
		}
	}
	return nil
}

// signalMain signals the application's first process.
func (s *space) signalMain(pod *corev1.Pod, signal unix.Signal) {
	s.Helper()
	p := mainOf(pod)
	require.NotNil(s, p, "no application in %s", pod.Name)
	require.True(s, p.signal(signal), "no application in %s", pod.Name)
}
