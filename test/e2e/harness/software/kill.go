// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package software

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// Trial is a deployed application that the test kills again and again.
type Trial struct {
	*Families
	w    Software
	a    app.App
	slot string
	// hangUp ends the client that writes to the journal.
	hangUp func()
}

// ends returns the faults that the trial injects. Some of these faults are defined in ends. The
// others are the faults of [fault.OfPods] without "child killed".
func (t *Trial) ends() []fault.Fault {
	// A server may delay its stop until its clients are gone, as PostgreSQL does. So hangUp ends
	// the server's client, which writes to the journal.
	polite := func(strike func(*space.Space, *corev1.Pod)) func(*space.Space, *corev1.Pod) {
		return func(s *space.Space, pod *corev1.Pod) {
			strike(s, pod)
			t.hangUp()
		}
	}
	main := func(signal unix.Signal) func(*space.Space, *corev1.Pod) {
		return func(s *space.Space, pod *corev1.Pod) { process.SignalMain(s, pod, signal) }
	}
	// The fault "child killed" works only with the test application, because this fault finds the
	// child by the name of the test application's program.
	others := slices.DeleteFunc(fault.OfPods(), func(f fault.Fault) bool { return f.Name == "child killed" })
	add := func(name string, vacancy time.Duration, strike func(*space.Space, *corev1.Pod)) {
		others = append(others, fault.Fault{Name: name, Vacancy: vacancy, Strike: strike})
	}
	add("asked to stop", lease.Handover, polite(main(unix.SIGTERM)))
	add("main process killed", lease.Handover, main(unix.SIGKILL))
	add("kubectl exec kill 1", lease.Handover, polite(func(s *space.Space, pod *corev1.Pod) {
		killByExec(s, pod.Name)
	}))
	add("slot stolen", lease.Handover, t.lose)
	add("yield", lease.Handover, func(s *space.Space, pod *corev1.Pod) { process.MustSignal(s, pod, process.Agent, unix.SIGUSR1) })
	// The agent's service account token is valid only as long as the pod object exists. So the agent
	// cannot release the slot.
	add("deleted by force", lease.Takeover, func(s *space.Space, pod *corev1.Pod) {
		now := int64(0)
		err := s.Client.CoreV1().Pods(s.Namespace).Delete(s.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		require.NoError(s, err)
	})
	return others
}

// lose steals the slot, and gives the slot back when the application is dead. If the thief's lease
// expires first, a standby may start the application again before lose looks. So lose does not wait
// for an instant without any application.
func (t *Trial) lose(*space.Space, *corev1.Pod) {
	before, _ := t.Living()
	lease.Steal(t.Space, t.slot)
	t.Await(lease.Takeover, "the application of "+t.w.Name+" is dead", func() bool {
		family, _ := t.Living()
		return family == nil || before != nil && family.Start != before.Start
	})
	lease.GiveBack(t.Space, t.slot)
}

// Every reports whether each application meets every fault, as in make soak.
var Every bool

// faults has the faults of each application in make test, because the restart after a fault takes
// time. Each fault of [Trial.ends] is in it once.
var faults = map[string][]string{
	"postgresql": {"main process killed", "agent and shim killed", "slot stolen", "deleted by force"},
	"redis":      {"pod deleted", "shim killed", "agent killed", "yield"},
	"gunicorn":   {"asked to stop", "kubectl exec kill 1", "containerd's shim killed"},
}

// chosen returns the faults that the application meets in this run.
func (t *Trial) chosen() []fault.Fault {
	all := t.ends()
	if Every {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all
	}
	return slices.DeleteFunc(all, func(f fault.Fault) bool { return !slices.Contains(faults[t.w.Name], f.Name) })
}

// survives deploys two replicas and injects faults one after the other. At no instant may two
// families of processes be alive.
func (w Software) survives(t *testing.T) {
	s := space.New(t)
	var volume corev1.VolumeSource
	if w.Data != "" {
		volume = claimVolume(s, w)
	}
	a := app.App{Name: w.Name, Replicas: 2, Annotations: app.Claim(api.SingletonAnnotation, "true"), Edit: w.Template(t, volume)}
	tr := &Trial{Families: NewFamilies(s, w.Name), w: w, a: a, slot: lease.OfDeployment(w.Name)}
	app.Create(s, a)
	tr.awaitServing("it was deployed", nil)
	app.AwaitGated(s, a)
	tr.w.Journal.begin(tr)

	deadly := 0
	for _, f := range tr.chosen() {
		tr.endure(f)
		if !f.Survivable {
			deadly++
		}
	}
	if w.Check != nil {
		w.Check(tr)
	}
	tr.NeverMoreThan(1)
	families := tr.All()
	t.Logf("%d families, of %v", len(families), families[len(families)-1].Programs)
	require.Greater(t, len(families), deadly, "a family before the faults, and another one after each deadly fault")
}

// awaitServing waits until the application serves with a new family of processes. Each family
// except the family "before" is new. If the argument "before" is nil, every family is new.
func (t *Trial) awaitServing(what string, before *witness.Family) {
	t.Helper()
	t.Await(ServeTimeout, t.w.Name+" serves again after "+what, func() bool {
		now, pod := t.Living()
		return now != nil && pod != nil && (before == nil || now.Start != before.Start) && t.w.Serves(t.Space, pod)
	})
}

// endure injects a fault into the holder, waits until the application serves again, and checks its
// journal. If the fault is survivable, the application may also have run on.
func (t *Trial) endure(b fault.Fault) {
	t.Helper()
	before, victim := t.busy()
	killed := process.Find(victim, process.Agent)
	b.Strike(t.Space, victim)
	struck := time.Now() // the last renewal of a killed agent is before this instant
	what := fmt.Sprintf("%s in %s", b.Name, victim.Name)
	survived := false
	t.Await(ServeTimeout, "one runs again after "+what, func() bool {
		survived = b.Survivable && t.runsOn(before, victim, killed, struck)
		now, _ := t.Living()
		return survived || (now != nil && now.Start != before.Start)
	})
	if survived {
		before = nil
	}
	t.awaitServing(what, before)
	t.hangUp()
	t.w.Journal.check(t)
	if before != nil {
		t.Logf("%-24s nobody for %v", b.Name, t.vacancyAfter(before).Round(time.Millisecond))
	}
	// A killed container waits in a growing back-off, so the test replaces the pod.
	if _, holder := t.Living(); holder != nil && holder.UID != victim.UID {
		err := t.Client.CoreV1().Pods(t.Namespace).Delete(t.Context(), victim.Name, metav1.DeleteOptions{})
		require.NoError(t, space.IgnoreNotFound(err))
	}
	app.AwaitGated(t.Space, t.a)
	t.awaitServing(what, nil)
}

// busy starts a client that writes to the journal of the living application, and returns
// that application's family and pod. On a starved machine the application may lose its
// slot at any time. Then the function tries the application of the next holder.
func (t *Trial) busy() (family *witness.Family, pod *corev1.Pod) {
	t.Helper()
	t.Await(ServeTimeout, t.w.Name+" serves a client", func() bool {
		var ok bool
		if family, pod = t.Living(); pod != nil {
			t.hangUp, ok = t.w.Journal.write(t.Space, pod)
		}
		return ok
	})
	return family, pod
}

// runsOn reports whether the application's processes from before the kill still live, and a
// new agent process has renewed the hold.
func (t *Trial) runsOn(before *witness.Family, victim *corev1.Pod, killed *process.Process, since time.Time) bool {
	now, holder := t.Living()
	if now == nil || now.Start != before.Start || holder == nil || t.Holder(t.slot) == nil {
		return false
	}
	fresh := process.Find(victim, process.Agent)
	return fresh != nil && killed != nil && fresh.PID != killed.PID && t.Lease(t.slot).Spec.RenewTime.After(since)
}

// vacancyAfter returns the time from the end of a family to the start of the next one. If no family
// follows, the result is zero.
func (t *Trial) vacancyAfter(before *witness.Family) time.Duration {
	all := t.All()
	i := slices.IndexFunc(all, func(f witness.Family) bool { return f.Start == before.Start })
	if i < 0 || i+1 == len(all) {
		return 0
	}
	return all[i+1].Start - all[i].End
}
