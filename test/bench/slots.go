// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/bench/samples"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// claim is a claim that the benchmark can measure.
type claim struct {
	name, key, value string
	// holders is the number of pods that hold a slot at once, and standbys the number of other pods.
	holders, standbys int
	// others is the number of pods of another workload. Each of these pods holds a shard.
	others int
}

func (c claim) annotation() string { return fmt.Sprintf("%s: %q", c.key, c.value) }

// singleton and shards8 are also the claims of other measurements.
var (
	singleton = claim{"singleton", api.SingletonAnnotation, "true", 1, fewestStandbys, 0}
	shards8   = claim{"8 shards", api.ShardsAnnotation, "8", 8, 8, 0}
)

// claims are the claims that the benchmark compares. Each standby sees each renewal and each release,
// and all pods share the processors. So the singleton is measured with each number of standbys.
// Sixty-four standbys of 64 shards are too many for two processors.
var claims = []claim{
	singleton,
	{"semaphore of 3", api.SemaphoreAnnotation, "pool=3", 3, 3, 0},
	{"singleton, 8 standbys", api.SingletonAnnotation, "true", 1, 8, 0},
	shards8,
	{"singleton, 16 standbys", api.SingletonAnnotation, "true", 1, 16, 0},
	{"singleton, 16 standbys, 63 others", api.SingletonAnnotation, "true", 1, 16, 63},
	{"64 shards", api.ShardsAnnotation, "64", 64, 16, 0},
}

// scale is the number of shards after the change that the method bench.change measures. Before
// this change the pods claim 8 shards.
const scale = 64

// seen is the wait between two handovers of a claim. In this time, the pod that held a slot before sees
// all slots of the claim again. With 64 slots the pod needs about two seconds. All pods have then
// written the new holder's name into their statuses, too, which takes up to show.WordsDelay.
const seen = 7 * time.Second

// slots measures for each claim the handover of one slot, and the requests and bytes of a holder
// and of a standby. Last, slots measures a change of the number of shards. The figures of a claim are
// printed before the next claim is measured, because a small machine may fail at the next claim. If
// the regular expression "chosen" is not empty, slots measures only the claims whose names match.
func (b *bench) slots(ctx context.Context, rounds int, chosen string) error {
	pattern, err := regexp.Compile(chosen)
	if err != nil {
		return fmt.Errorf("-claims: %w", err)
	}
	fmt.Println("Handover of one slot, in milliseconds: from the old application's exit to the new one's exec, both stamped by the kernel.")
	fmt.Println("Requests of one pod in a minute without an event, its open watches, and the kilobytes in its network namespace.")
	for _, c := range claims {
		if !pattern.MatchString(c.name) {
			continue
		}
		if err := b.claim(ctx, c, rounds); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if chosen != "" {
		return nil
	}
	return b.change(ctx, shards8, scale)
}

// claim measures and prints the costs and the handovers of one claim.
func (b *bench) claim(ctx context.Context, c claim, rounds int) error {
	if err := b.fill(ctx, c, c.standbys); err != nil {
		return err
	}
	costs, err := b.cost(ctx, c)
	if err != nil {
		return err
	}
	fmt.Println("\n| claim | | pods | get | update | patch | watches | kB received | kB sent |\n|---|---|---|---|---|---|---|---|---|")
	for _, row := range costs {
		fmt.Println(row)
	}
	begin, err := b.auditEnd()
	if err != nil {
		return err
	}
	rounded, err := b.handover(ctx, rounds, seen)
	if err != nil {
		return err
	}
	refused, err := b.refused(begin)
	if err != nil {
		return err
	}
	var times samples.Times
	for _, h := range rounded {
		times = append(times, h.exec-h.exit)
	}
	fmt.Println("\n| claim | rounds | p50 | p99 | max |\n|---|---|---|---|---|")
	times.Print(c.name)
	fmt.Printf("\nIn each handover the API server refused %.1f writes, because another write of the Lease came first.\n",
		float64(refused)/float64(len(rounded)))
	writes, err := b.writes(begin)
	if err != nil {
		return err
	}
	return printSteps(rounded, writes)
}

// refused returns the number of updates that the API server has refused as outdated since the audit
// log had the given length.
func (b *bench) refused(from int64) (n int, err error) {
	err = b.audit(from, func(a audited) {
		if a.Verb == "update" && a.ResponseStatus.Code == http.StatusConflict {
			n++
		}
	})
	return n, err
}

// fill deploys the application under a claim, and waits until all slots have holders and all other
// pods stand by.
func (b *bench) fill(ctx context.Context, c claim, standbys int) error {
	pods := strconv.Itoa(c.holders + standbys)
	if err := b.apply(ctx, c, standbys, "wait", "deployment/app", "--for=jsonpath={.status.replicas}="+pods, "--timeout=60s"); err != nil {
		return err
	}
	if err := b.kubectl(ctx, nil, "-n", namespace, "wait", "pod", "-l", "app=app", "--for=jsonpath={.status.phase}=Running", "--timeout=900s"); err != nil {
		return err
	}
	if err := b.kubectl(ctx, nil, "-n", namespace, "rollout", "status", "deployment/others", "--timeout=900s"); err != nil {
		return err
	}
	run, err := b.listen(ctx)
	if err != nil {
		return err
	}
	defer run.stop()
	return run.await(ctx, func() bool { return len(run.alive) == c.holders })
}

// runs follows the applications in the benchmark's pods. The field "alive" has the applications
// that run, by PID.
type runs struct {
	alive  map[int]witness.Process
	events chan witness.Event
	failed chan error
	stop   context.CancelFunc
}

func (b *bench) listen(ctx context.Context) (*runs, error) {
	agents, err := b.agents(ctx)
	if err != nil {
		return nil, err
	}
	w, err := witness.Listen("app")
	if err != nil {
		return nil, err
	}
	r := &runs{alive: map[int]witness.Process{}, events: make(chan witness.Event, 1024), failed: make(chan error, 1)}
	for _, p := range w.Alive() {
		if _, ours := agents[p.Pod]; ours {
			r.alive[p.PID] = p
		}
	}
	ctx, r.stop = context.WithCancel(ctx)
	go func() { r.failed <- w.Run(ctx, func(e witness.Event) { r.events <- e }) }()
	return r, nil
}

// await handles events until the function "reached" returns true. After a quarter of an
// hour await returns an error.
func (r *runs) await(ctx context.Context, reached func() bool) error {
	limit := time.After(15 * time.Minute)
	for !reached() {
		select {
		case e := <-r.events:
			r.take(e)
		case err := <-r.failed:
			return cmp.Or(err, ctx.Err())
		case <-limit:
			return errors.New("the applications did not start within a quarter of an hour")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (r *runs) take(e witness.Event) {
	if e.Kind == witness.Exit {
		delete(r.alive, e.Process.PID)
	} else {
		r.alive[e.Process.PID] = e.Process
	}
}

// cost counts the requests of each pod in a minute in which the benchmark changes nothing. The
// first returned row shows the holder that received the most bytes. The second row shows the
// standby that received the most bytes.
func (b *bench) cost(ctx context.Context, c claim) ([]string, error) {
	agents, err := b.agents(ctx)
	if err != nil {
		return nil, err
	}
	begin, err := b.auditEnd()
	if err != nil {
		return nil, err
	}
	before := traffic(agents)
	select {
	case <-time.After(time.Minute):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after := traffic(agents)
	counts := map[string]map[string]int{}
	if err := b.audit(begin, func(event audited) {
		_, uid := event.pod()
		if counts[uid] == nil {
			counts[uid] = map[string]int{}
		}
		counts[uid][event.Verb]++
	}); err != nil {
		return nil, err
	}
	watches, err := b.watches()
	if err != nil {
		return nil, err
	}
	holds := map[string]bool{}
	for _, p := range witness.Processes("app") {
		holds[p.Pod] = true
	}
	var rows []string
	for _, role := range []string{"holder", "standby"} {
		most, pods := "", 0
		for uid := range agents {
			if holds[uid] == (role == "holder") {
				pods++
				if most == "" || after[uid].received-before[uid].received > after[most].received-before[most].received {
					most = uid
				}
			}
		}
		n, kB := counts[most], func(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/1000) }
		rows = append(rows, fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %d | %s | %s |", c.name, role, pods, n["get"], n["update"], n["patch"],
			watches[most], kB(after[most].received-before[most].received), kB(after[most].sent-before[most].sent)))
	}
	return rows, nil
}

// watches counts the open watches of each pod: the audit log has one line for the beginning of a
// watch, and one for its end.
func (b *bench) watches() (map[string]int, error) {
	open := map[string]int{}
	err := b.history(func(event audited) {
		_, uid := event.pod()
		switch {
		case event.Verb != "watch":
		case event.Stage == "ResponseStarted":
			open[uid]++
		default:
			open[uid]--
		}
	})
	return open, err
}

type volume struct{ received, sent int64 }

// traffic returns the bytes that crossed each pod's network interface.
func traffic(agents map[string]processes) map[string]volume {
	all := map[string]volume{}
	for uid, p := range agents {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", p.agent))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			name, counters, ok := strings.Cut(line, ":")
			fields := strings.Fields(counters)
			if !ok || strings.TrimSpace(name) == "lo" || len(fields) < 9 {
				continue
			}
			received, _ := strconv.ParseInt(fields[0], 10, 64)
			sent, _ := strconv.ParseInt(fields[8], 10, 64)
			all[uid] = volume{all[uid].received + received, all[uid].sent + sent}
		}
	}
	return all
}

// change changes the number of shards in the template. For each shard that existed before the
// change, the method measures how long no application ran under that shard.
func (b *bench) change(ctx context.Context, from claim, to int) error {
	if err := b.fill(ctx, from, to); err != nil {
		return err
	}
	run, err := b.listen(ctx)
	if err != nil {
		return err
	}
	defer run.stop()
	shards := map[int]string{} // the shard of each process, by PID
	for pid := range run.alive {
		shards[pid] = variable(pid, api.ShardEnv)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"%d"}}}`, from.key, to)
	if err := b.kubectl(ctx, nil, "-n", namespace, "patch", "deployment/app", "--type=merge", "-p", patch); err != nil {
		return err
	}
	ended, still, running := map[string]time.Duration{}, map[string]time.Duration{}, map[string]bool{}
	began := witness.Now()
	var complete time.Duration
	limit := time.After(10 * time.Minute)
	for len(running) < to {
		select {
		case e := <-run.events:
			if e.Kind == witness.Exit {
				if shard, known := shards[e.Process.PID]; known {
					ended[shard] = e.At
				}
				continue
			}
			shard, of := variable(e.Process.PID, api.ShardEnv), variable(e.Process.PID, api.ShardsEnv)
			if of != strconv.Itoa(to) {
				shards[e.Process.PID] = shard
				continue
			}
			if at, stood := ended[shard]; stood && !running[shard] {
				still[shard] = e.At - at
			}
			running[shard], complete = true, e.At
		case err := <-run.failed:
			return cmp.Or(err, ctx.Err())
		case <-limit:
			return fmt.Errorf("%d of %d shards run ten minutes after the change", len(running), to)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fmt.Printf("\nA change from %d to %d shards, in %d pods, in milliseconds.\n", from.holders, to, from.holders+to)
	fmt.Println("\n| | shards | p50 | p99 | max |\n|---|---|---|---|---|")
	samples.Times(slices.Collect(maps.Values(still))).Print("a shard of the first number: from its last exit to its first exec")
	samples.Times{complete - began}.Print("from the change of the template to the start of the last shard")
	return nil
}

// variable returns an environment variable of a process; empty if the process is gone.
func variable(pid int, name string) string {
	environment, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for one := range strings.SplitSeq(string(environment), "\x00") {
		if value, ok := strings.CutPrefix(one, name+"="); ok {
			return value
		}
	}
	return ""
}
