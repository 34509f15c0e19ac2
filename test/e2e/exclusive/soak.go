// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// Soak is the time for which pods are deleted and killed.
var Soak = 2 * time.Minute

// Three replicas on three nodes suffer one fault after the other. At the end of the test,
// the cleanup of its space searches the whole record for two applications that ran at the same
// time.
func TestApplicationStaysExclusiveDespiteDeletionsAndKills(t *testing.T) {
	cluster.NeedLab(t, "it kills processes of pods")
	t.Parallel()
	s := space.New(t)
	a := app.Singleton("steady")
	// The application starts an orphan, which is in a session of its own and ignores
	// SIGTERM. The orphan belongs to the child, so it must die with the child.
	a.Args = []string{"-grandchild", "-stop-delay=200ms"}
	app.Deploy(s, a)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	worst := map[string]time.Duration{}
	counts := map[string]int{}
	for end := time.Now().Add(Soak); time.Now().Before(end); {
		// Each round injects all faults, in a new random sequence.
		all := fault.OfPods()
		for _, i := range random.Perm(len(all)) {
			worst[all[i].Name] = max(worst[all[i].Name], endure(s, a, all[i]))
			counts[all[i].Name]++
		}
	}
	for _, b := range fault.OfPods() {
		t.Logf("%-26s %3d times, nobody for %v at most", b.Name, counts[b.Name], worst[b.Name].Round(time.Millisecond))
	}
}

// endure injects a fault into the holder, and waits until the application runs again.
// endure returns the time for which no pod ran the application. That time may last as long as
// [fault.Fault.Vacancy] plus the time for which the API server stored no writes. If that time
// lasts longer, the test fails. A takeover needs several writes, so no fixed bound holds on a machine
// whose API server stores no write for 20 seconds.
func endure(s *space.Space, a app.App, b fault.Fault) time.Duration {
	s.Helper()
	before := app.AwaitRunning(s, a, lease.Takeover)
	victim := s.Pod(before.Pod)
	require.NotNil(s, victim)
	killed := process.Find(victim, process.Agent)
	began := time.Now()
	b.Strike(s, victim)
	struck := time.Now() // the last renewal of a killed agent is before this instant
	what := fmt.Sprintf("one runs again after %s in %s", b.Name, victim.Name)
	survived := false
	s.Await(space.StartTimeout, what, func() bool {
		survived = b.Survivable && resumed(s, a, before, killed, struck)
		return survived || app.After(s, a, before) != nil
	})
	if survived {
		return 0
	}
	vacancy := app.VacancyAfter(s, a, before)
	stalled := space.Stalled(began)
	assert.LessOrEqual(s, vacancy, b.Vacancy+stalled,
		"%s; writes stalled for %v; the Lease since the fault:\n%s", what, stalled, s.History(lease.OfDeployment(a.Name), began))
	if s.Pod(victim.Name) != nil && app.AwaitRunning(s, a, lease.Takeover).Pod != victim.Name {
		// A killed container waits in a growing back-off, so the test replaces the pod.
		s.Await(space.StartTimeout, victim.Name+" can be asked to stop", func() bool {
			now := s.Pod(victim.Name)
			return now == nil || now.DeletionTimestamp != nil || process.Hears(process.Find(now, process.Shim), unix.SIGTERM)
		})
		err := s.Client.CoreV1().Pods(s.Namespace).Delete(s.Context(), victim.Name, metav1.DeleteOptions{})
		require.NoError(s, space.IgnoreNotFound(err))
	}
	app.AwaitGated(s, a)
	app.AwaitRunning(s, a, lease.Takeover)
	return vacancy
}

// resumed reports whether the application still runs and a new agent process has renewed
// its hold. The PID of the new agent must differ from the old agent's. After a kill of containerd's
// shim, the old agent may live on for a moment.
func resumed(s *space.Space, a app.App, before *record.Process, killed *process.Process, since time.Time) bool {
	now, holder := s.Running(a.Name), s.Holder(lease.OfDeployment(a.Name))
	if now == nil || now.ID != before.ID || holder == nil || holder.Name != before.Pod {
		return false
	}
	fresh := process.Find(holder, process.Agent)
	return fresh != nil && killed != nil && fresh.PID != killed.PID && s.Lease(lease.OfDeployment(a.Name)).Spec.RenewTime.After(since)
}
