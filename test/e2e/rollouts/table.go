// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/client"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/workload"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// Rows is a regular expression. [TestEachTypeOfWorkloadRollsOutAsDocumented] prints a table about
// the workloads whose names match. If Rows is empty, the test is skipped.
var Rows string

var (
	first = workload.Version{Name: "first"}
	good  = workload.Version{Name: "good", Args: []string{"-start-delay=200ms"}}
)

const (
	// The constant named goes is the bound of the rollout of a good version. An old pod
	// serves for a minute before it yields to a new pod. If the slot moves to a second old
	// pod first, that pod serves for a minute, too.
	goes = 170 * time.Second
	// The constant named serves is the bound of the wait until some version runs. On a busy
	// test machine, a living application may seem dead, but for less than this time.
	serves = 5 * time.Second
	// The constant named waits is the time for which the test observes the rollout of a broken
	// version. The rollout of a broken version finishes within that time, unless it stalls.
	waits = 20 * time.Second
)

// table has the rows that were measured.
type table struct {
	mu   sync.Mutex
	rows []row
}

// row has the figures of one event in the life of a workload.
type row struct {
	kind, event string
	seen        client.Summary
	stops       int
	vacant      time.Duration
	rollout     string
	serves      string
}

// TestEachTypeOfWorkloadRollsOutAsDocumented prints one table, and takes ten minutes. So
// "make rollouts" runs the test, and "make test" does not.
func TestEachTypeOfWorkloadRollsOutAsDocumented(t *testing.T) {
	if Rows == "" {
		t.Skip("make rollouts runs it")
	}
	l := cluster.NeedLab(t, "it needs the record, and a client on a node")
	chosen, err := regexp.Compile("^(" + Rows + ")$")
	require.NoError(t, err)
	all, matched := &table{}, 0
	t.Cleanup(func() { all.print() })
	for _, kind := range workload.Kinds() {
		if !chosen.MatchString(kind.Name) {
			continue
		}
		matched++
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel()
			s := space.New(t)
			// Nodes learn of a Service late, so the test makes the Service before the
			// pods.
			service := app.Service(s, app.App{Name: kind.Name})
			p := &play{Workload: workload.Start(s, kind, first, 0), lab: l, service: service, table: all}
			p.rollsOut()
			p.losesItsHolder()
			p.yields()
			p.breaks()
		})
	}
	require.NotZero(t, matched, "no kind of workload matches %q", Rows)
}

// play takes one workload through the events of the table.
type play struct {
	*workload.Workload
	lab     *lab.Cluster
	service *corev1.Service
	table   *table
}

// during measures the effects of one event for the table. The caller's function causes the
// event, and returns the state of the rollout.
func (p *play) during(event string, happens func(began time.Duration) (rollout string)) row {
	p.Helper()
	c := client.Start(p.Space, p.lab, p.lab.Nodes()[0], client.Anew, p.service.Spec.ClusterIP)
	p.Await(space.StartTimeout, "the Service answers", c.Answered)
	began := record.Now()
	r := row{kind: p.Kind.Name, event: event, rollout: happens(began)}
	r.seen = c.Stop()
	p.Within(serves, func() bool { r.serves = p.Runs(); return r.serves != "" })
	r.stops, r.vacant = p.Stops(began)
	p.table.add(r)
	p.log(r, began)
	return r
}

// log logs each process of the application that ran after the given instant, and the number of
// connections that failed in each second.
func (p *play) log(r row, since time.Duration) {
	p.Logf("%s: began at %s", r.event, time.Now().Add(since-record.Now()).Format(time.StampMilli))
	for _, one := range p.Record(p.App.Name).Mains() {
		if one.Last > since {
			p.Logf("%s: %s runs from %v to %v, code %d", r.event, one.Pod, one.Start-since, one.Last-since, one.Code)
		}
	}
	lost := map[string]int{}
	for _, failed := range r.seen.Failed {
		second, _, _ := strings.Cut(failed, ".")
		lost[second+failed[strings.LastIndex(failed, ":"):]]++
	}
	for _, when := range slices.Sorted(maps.Keys(lost)) {
		p.Logf("%s: lost at %s, %d times", r.event, when, lost[when])
	}
}

func (p *play) rollsOut() {
	r := p.during("good version", func(time.Duration) string {
		p.Apply(good)
		require.NoError(p, p.Finishes(goes))
		p.AwaitVersion(good)
		return "finished"
	})
	assert.Equal(p, good.Name, r.serves)
	assert.GreaterOrEqual(p, r.stops, 1)
	assert.LessOrEqual(p, r.stops, p.Kind.Stops, "a good rollout stops the application no more often")
	assert.Less(p, r.vacant, lease.Released, "a deleted standby does not use its grace, nor does a Lease expire")
}

func (p *play) losesItsHolder() {
	r := p.during("holder deleted", func(began time.Duration) string {
		holder := p.AwaitHolder(p.Slot())
		app.DeletePod(p.Space, holder)
		p.awaitStart(began)
		p.Await(space.StartTimeout, "the deleted pod is gone", func() bool {
			now := p.Pod(holder.Name)
			return now == nil || now.UID != holder.UID
		})
		p.AwaitVersion(good)
		p.awaitStop(began)
		return "-"
	})
	assert.Equal(p, good.Name, r.serves)
	assert.Equal(p, 1, r.stops)
}

func (p *play) yields() {
	r := p.during("yield", func(began time.Duration) string {
		holder := p.AwaitHolder(p.Slot())
		kubectl.Must(p.Space, "", "exec", holder.Name, "-c", api.AgentContainer, "--", "/agent", "yield")
		p.awaitStart(began)
		p.AwaitVersion(good)
		p.awaitStop(began)
		return "-"
	})
	assert.Equal(p, good.Name, r.serves)
	assert.Equal(p, 1, r.stops)
}

// breaks applies [workload.Broken], and never applies the old version again.
func (p *play) breaks() {
	r := p.during("broken version", func(began time.Duration) string {
		p.Apply(workload.Broken)
		p.Await(goes, "the broken version has its turn", func() bool { return len(p.Failed(began)) > 0 })
		if p.Kind.Protected {
			p.Await(space.Soon, "the old version runs again", func() bool { return p.Runs() == good.Name })
			p.Await(space.Soon, "the old pods are Ready", func() bool {
				pods, ready := p.Left(good)
				return pods > 0 && ready == pods
			})
		}
		if p.Finishes(waits) == nil {
			return "finished"
		}
		return "stalls"
	})
	if !p.Kind.Protected {
		return
	}
	assert.Equal(p, "stalls", r.rollout)
	assert.Equal(p, good.Name, r.serves)
	_, ready := p.Left(workload.Broken)
	assert.Zero(p, ready, "a pod of the broken version is Ready")
}

// awaitStart waits until the application has started after the given instant.
func (p *play) awaitStart(after time.Duration) {
	p.Helper()
	p.Await(space.StartTimeout, "the application starts", func() bool { return len(p.Starts(after)) > 0 })
}

// awaitStop waits until the record shows a stop after the given instant.
func (p *play) awaitStop(after time.Duration) {
	p.Helper()
	p.Await(space.Soon, "the application has stopped", func() bool { stops, _ := p.Stops(after); return stops > 0 })
}

func (t *table) add(r row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
}

// print prints the table in the order of [workload.Kinds].
func (t *table) print() {
	t.mu.Lock()
	defer t.mu.Unlock()
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("\nW = %v, %d CPUs, load %s, %s\n\n", api.DefaultEndpointDelay, runtime.NumCPU(),
		strings.Join(strings.Fields(string(load))[:1], ""), time.Now().UTC().Format(time.DateOnly))
	fmt.Println("| workload | event | answered | refused | reset | slowest | stops | longest stop | rollout | serves |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, kind := range workload.Kinds() {
		for _, r := range t.rows {
			if r.kind != kind.Name {
				continue
			}
			refused := r.seen.Refused()
			fmt.Printf("| %s | %s | %d | %d | %d | %v | %d | %v | %s | %s |\n", r.kind, r.event, r.seen.Answered, refused,
				len(r.seen.Failed)-refused, r.seen.Slowest.Round(time.Millisecond), r.stops, r.vacant.Round(time.Millisecond), r.rollout,
				cmp.Or(r.serves, "none"))
		}
	}
}
