// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/diagnosis"
)

const statusLong = `Shows slots in a table: the holder and its node, how long it has held, and how many
pods stand by. Without SLOTS, the command shows all slots of the namespace, and names
on standard error the controllers whose pods were refused. -o wide adds the token and
the last handover. -v tells all in words: pauses, standbys with the reasons why they
wait, and handovers. The command only reads.

STATUS is Serving, Starting, NotServing, Free, Done, NoLease (enroll has made no Lease),
HolderGone, HolderEnds (its pod is being deleted), Paused, Yielding, Wished (a pod wishes
for the slot), Leaving (the holder has announced its end), RolloutWaits(40s) (a newer
version waits for its turn, or to be proven in it; -v says why), Ungated (pods run
without a gate), NotCarried (the pod template lacks the claim, so new pods run without a
gate) or Refused (new pods are refused). An annotation with a mistake, by which a workload
means to claim, has a row with its key instead of a slot.

The times come from the clocks of the pods' nodes. The duration of a handover is the
time between the Events of release and acquisition, in whole seconds. With -w the
command continues: on a terminal it draws the table again, elsewhere it prints each
slot that changes. A renewal does not count as a change.

Exit codes: 0 each claimed slot is paused, or has a holder that serves or starts
(for a once claim, any holder); 1 a claimed slot has no such holder, or pods of its
workload run without a gate, or would, or are refused, or nothing has the name; 2 error. A
holder that renews counts as starting for a third of the lease duration.`

func (p *plugin) statusCommand() *cobra.Command {
	v := screen{std: p.std, now: time.Now}
	var all bool
	c := &cobra.Command{
		Use: "status [SLOTS]", Short: "Show slots with their holders and standbys", Long: statusLong + slotsHelp,
		Example: `  kubectl metaparticle status -A -o wide
  kubectl metaparticle status deployment/biller -v
  kubectl metaparticle status lock/migrate -o jsonpath='{.slots[0].holder.pod}'`,
		ValidArgsFunction: p.completion(targets),
	}
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "all namespaces")
	c.Flags().BoolVarP(&v.watch, "watch", "w", false, "continue, and show what changes")
	c.Flags().BoolVarP(&v.words, "verbose", "v", false, "words instead of a table: standbys, handovers, and why")
	c.Flags().BoolVar(&v.bare, "no-headers", false, "a table without its first line")
	outputFlag(c, &v.output, "wide", "name")
	c.RunE = p.runs(func(ctx context.Context, args []string) (int, error) {
		if v.output == "table" {
			v.output = ""
		}
		err := judgeOutput(v.output, "wide", "name")
		switch {
		case err != nil:
			return exitError, err
		case v.words && v.output != "":
			return exitError, errors.New("-v has no other format: leave out -o")
		case all && len(args) > 0:
			return exitError, fmt.Errorf("-A shows all slots of all namespaces: leave out %q", strings.Join(args, " "))
		}
		if len(args) > 0 {
			if err := nameSlots(args); err != nil {
				return exitError, err
			}
		}
		opened, namespace, err := p.open()
		if err != nil {
			return exitError, err
		}
		if all {
			namespace = ""
		}
		return v.run(ctx, opened, namespace, args)
	})
	return c
}

// screen shows slots, once or as they change.
type screen struct {
	std    stdio
	output string
	// words selects sentences instead of a table. The field "bare" leaves the table's first line out.
	watch, words, bare bool
	now                func() time.Time
}

// run shows the slots. That nothing has a name is an answer, so a refusal has the exit code 1 here.
func (v screen) run(ctx context.Context, c cluster, namespace string, args []string) (int, error) {
	code, err := v.show(ctx, c, namespace, args)
	if refused, ok := errors.AsType[refusal](err); ok {
		say(v.std.err, "%s", refused)
		return exitNot, nil
	}
	return code, err
}

func (v screen) show(ctx context.Context, c cluster, namespace string, args []string) (int, error) {
	var only []string
	if len(args) > 0 {
		s, err := findSoon(ctx, c, namespace, args)
		switch {
		case s != nil && len(s.lacking) > 0:
			only = slices.Concat(s.slots, s.lacking)
		case err != nil:
			return exitError, err
		default:
			only = s.slots
		}
	}
	if v.watch {
		if err := c.hasNamespace(ctx, namespace); err != nil {
			return exitError, err
		}
		return exitOK, v.follow(ctx, c, namespace, only)
	}
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	state, notes, err := c.read(bounded, namespace)
	if err != nil {
		return exitError, err
	}
	events, refusals := c.refusals(bounded, namespace, v.now())
	state.addRefusals(events)
	if only == nil {
		notes = append(notes, refusals...)
	}
	defer func() { // below the table, which people look at first
		for _, note := range notes {
			say(v.std.err, "note: %s", note)
		}
	}()
	slots := state.slots(only, v.now())
	code := exitOK
	for _, s := range slots {
		if !s.Healthy() {
			code = exitNot
		}
	}
	if len(slots) == 0 {
		if err := c.hasNamespace(bounded, namespace); err != nil {
			return exitError, err
		}
		if !isData(v.output) {
			say(v.std.err, "no slots")
			return code, nil
		}
	}
	return code, v.write(slots, state, namespace == "")
}

// clear makes a terminal empty, with the cursor in its first line.
const clear = "\x1b[H\x1b[2J\x1b[3J"

// follow shows the slots, and then each slot that changes, until ctx ends. On a terminal, a table is
// drawn again with each change.
func (v screen) follow(ctx context.Context, c cluster, namespace string, only []string) error {
	terminal := v.std.terminal()
	shown := map[types.NamespacedName]view.Slot{}
	err := c.follow(ctx, namespace, func(state objects) error {
		var changed []view.Slot
		all := state.slots(only, v.now())
		if terminal != nil && !v.words && !isData(v.output) && v.output != "name" {
			if _, err := io.WriteString(terminal, clear); err != nil {
				return err
			}
			return v.write(all, state, namespace == "")
		}
		for _, s := range all {
			key := types.NamespacedName{Namespace: s.Namespace, Name: s.Slot}
			if before, ok := shown[key]; !ok || !reflect.DeepEqual(lasting(before), lasting(s)) {
				changed = append(changed, s)
			}
			shown[key] = s
		}
		if len(changed) == 0 {
			return nil
		}
		if !isData(v.output) {
			changed = whole(changed, all)
		}
		if v.words {
			say(v.std.out, "%s", v.now().Format(time.TimeOnly))
		}
		err := v.write(changed, state, namespace == "")
		v.bare = true // as in kubectl, only the first table has a heading
		return err
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// lasting returns the slot without the field that changes with each renewal.
func lasting(s view.Slot) view.Slot {
	if s.Holder != nil {
		holder := *s.Holder
		holder.Renewed = nil
		s.Holder = &holder
	}
	return s
}

func (v screen) write(slots []view.Slot, state objects, namespaces bool) error {
	var b strings.Builder
	switch {
	case isData(v.output):
		text, err := encoded(map[string]any{"slots": slots}, v.output)
		if err != nil {
			return err
		}
		_, err = v.std.out.Write(text)
		return err
	case v.output == "name":
		for _, s := range slots {
			if s.Kind != view.Mistake {
				say(&b, "lease/%s", s.Slot)
			}
		}
	case !v.words:
		if err := v.table(&b, slots, state, namespaces); err != nil {
			return err
		}
	default:
		v.sentences(&b, slots, namespaces)
	}
	_, err := io.WriteString(v.std.out, b.String())
	return err
}

func (v screen) sentences(b *strings.Builder, slots []view.Slot, namespaces bool) {
	locks := locksOf(slots)
	for _, s := range slots {
		if s.Kind != view.RWLock {
			v.text(b, s, namespaces)
		} else if lock := locks[s.Group()]; lock != nil {
			v.lock(b, lock, namespaces)
			delete(locks, s.Group())
		}
	}
}

// text writes one slot for people: a line, and below it a line for each standby and
// each handover.
func (v screen) text(b *strings.Builder, s view.Slot, namespaces bool) {
	name := s.Slot
	if namespaces {
		name = s.Namespace + "/" + name
	}
	say(b, "%s: %s", name, v.summary(s))
	for _, why := range s.Why {
		say(b, "  %s", why)
	}
	writeFindings(b, s)
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	writeStandbys(table, s.Standbys)
	for _, h := range s.Handovers {
		row(table, "handover", h.Pod, age(v.now(), h.At)+" ago", handoverText(h))
	}
	table.Flush()
	switch {
	case len(s.Handovers) > 0:
	case s.Moved != nil:
		say(b, "  %s", movedText(s))
	case s.Transitions > 0:
		say(b, "  the holder has changed %d times; no Event tells more", s.Transitions)
	}
}

// lock writes a read-write lock for people: a line, and below it a line for each pod.
func (v screen) lock(b *strings.Builder, lock []view.Slot, namespaces bool) {
	name := lockOf(lock[0].Slot)
	if namespaces {
		name = lock[0].Namespace + "/" + name
	}
	if !slices.ContainsFunc(lock, func(s view.Slot) bool { return !s.Missing }) {
		say(b, "%s: a %s that waits for its Lease", name, view.RWLock)
		return
	}
	var rows [][]string
	readers, writer := 0, "nobody writes"
	for _, p := range possessions(lock) {
		add := func(role string, with ...string) {
			s := p.slots[0]
			v.holder(s, func(format string, args ...any) { with = append(with, fmt.Sprintf(format, args...)) })
			rows = append(rows, []string{role, s.Holder.Pod, strings.Join(with, ", ")})
		}
		switch {
		case p.writes:
			writer = p.slots[0].Holder.Pod + " writes"
			add("writer")
		case p.waits:
			writer = p.slots[0].Holder.Pod + " waits to write"
			add("waits", fmt.Sprintf("has %d of %d slots", len(p.slots)-1, api.RWLockSlots))
		default:
			readers += len(p.slots)
			add("reader", p.slots[0].Slot)
		}
	}
	parts := []string{fmt.Sprintf("%d read", readers), writer}
	standbys := standbysOf(lock)
	for _, s := range lock {
		if s.Paused != "" {
			parts = append(parts, fmt.Sprintf("%s is paused (%s)", s.Slot, s.Paused))
		}
	}
	say(b, "%s: %s, %s, %s", name, view.RWLock, strings.Join(parts, ", "), standing(len(standbys)))
	writeFindings(b, lock...)
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, cells := range rows {
		row(table, cells...)
	}
	writeStandbys(table, standbys)
	table.Flush()
}

// standbysOf returns the standbys of all slots of a lock, each once.
func standbysOf(lock []view.Slot) (all []*view.Standby) {
	for _, s := range lock {
		for _, p := range s.Standbys {
			if !slices.ContainsFunc(all, func(o *view.Standby) bool { return o.Identity == p.Identity }) {
				all = append(all, p)
			}
		}
	}
	return all
}

// writeStandbys writes a line for each standby.
func writeStandbys(table *tabwriter.Writer, standbys []*view.Standby) {
	for _, p := range standbys {
		ready := "not Ready"
		if p.Ready {
			ready = "Ready"
		}
		row(table, "standby", p.Pod, ready, p.Reason+": "+p.Said)
	}
}

// writeFindings writes what is wrong with the slots, their workloads and their pods, each with the command that mends it
// or tells more. All slots that a pod claims have the findings of the pod.
func writeFindings(b *strings.Builder, slots ...view.Slot) {
	said := map[string]bool{}
	for _, s := range slots {
		for _, f := range s.Findings {
			if said[f.String()] {
				continue
			}
			said[f.String()] = true
			say(b, "  %s: %s", f.Severity, f)
			if f.Run != "" && f.Run != diagnosis.Command(s.Namespace, s.Slot, "metaparticle", "status") { // which this is
				say(b, "    run: %s", f.Run)
			}
		}
	}
}

// standing returns the text about n standbys.
func standing(n int) string {
	return plural(n, "standby")
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// summary returns a slot's line for people.
func (v screen) summary(s view.Slot) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch h := s.Holder; {
	case s.Kind == view.Mistake:
		return "an annotation with a mistake, so its pods have no slot"
	case s.Missing:
		return "a " + s.Kind + " that waits for its Lease"
	case h == nil && worked(s):
		add("%s", s.Kind) // the keys follow
	case h == nil:
		add("%s, nobody holds", s.Kind)
	default:
		add("%s, held by %s", s.Kind, h.Pod)
		v.holder(s, add)
	}
	if s.Kind == view.Shards {
		add("%s", shardsOf(api.ParseStamp(s.Stamp)))
	}
	if s.Opened > 0 {
		add("open for %d pods", s.Opened)
	}
	if s.Paused != "" {
		add("paused (%s)", s.Paused)
	}
	if s.Yield != "" && s.Holder != nil && api.ParseYield(s.Yield).Hold == s.Holder.Hold {
		add("asked to yield")
	}
	if s.Successor != "" {
		add("%s is to hold next", api.PodOf(s.Successor))
	}
	if len(s.Done) > 0 {
		add("done: %s", strings.Join(s.Done, " "))
	}
	add("%s", standing(len(s.Standbys)))
	return strings.Join(parts, ", ")
}

// worked reports whether all known work of a once claim, or of a Job's shard, is done. Nobody needs
// such a slot.
func worked(s view.Slot) bool {
	if len(s.Standbys) > 0 || len(s.Failures) > 0 {
		return false
	}
	run := api.ParseStamp(s.Stamp).Run
	return s.Kind == view.Once && len(s.Done) > 0 || run != "" && slices.Contains(s.Done, run)
}

// holder adds the facts about the holder to a slot's line.
func (v screen) holder(s view.Slot, add func(string, ...any)) {
	h := s.Holder
	switch {
	case h.Gone:
		add("a pod that is gone")
	case h.Deleted:
		add("which is being deleted")
	}
	if h.Since != nil {
		add("for %s", age(v.now(), *h.Since))
	}
	if h.Token != "" {
		add("token %s", h.Token)
	}
	if h.Renewed != nil {
		add("renewed %s ago", age(v.now(), *h.Renewed))
	}
	if h.Takeover != "" {
		add("without a renewal %s", h.Takeover)
	}
	switch {
	case h.ServingSince != nil:
		add("serves for %s", age(v.now(), *h.ServingSince))
	case h.Starting:
		add("starting")
	case h.Hold != "" && s.Kind != view.Once && s.Kind != view.RWLock:
		add("does not serve")
	}
}

// handoverText returns the facts about a handover, for people.
func handoverText(h view.Handover) string {
	switch {
	case h.First:
		return "first holder"
	case h.From == "":
		return "acquired; no Event tells of a release before it"
	case h.Expired && h.From == h.Pod:
		return "again, after its own lease expired" + because(h)
	case h.Expired:
		return "took over after the lease of " + h.From + " expired" + because(h)
	}
	text := "from " + h.From + because(h)
	if *h.Seconds < 1 {
		return text + ", within 1s"
	}
	return fmt.Sprintf("%s, %.0fs after its release", text, *h.Seconds)
}

// because returns the cause of a handover in brackets; empty if no Event states a cause.
func because(h view.Handover) string {
	switch h.Reason {
	case "":
		return ""
	case api.ReasonReleased:
		return " (" + h.Cause + ")"
	}
	return " (" + h.Reason + ")"
}

// shardsOf returns the text about the shards that the stamp of a Lease names.
func shardsOf(s api.Stamp) string {
	text := fmt.Sprintf("%d shards", s.Count)
	if s.Count == 1 {
		text = "1 shard"
	}
	if s.Run != "" {
		text += " in the run " + s.Run
	}
	if s.Closed {
		return "closed for a change to " + text
	}
	return "for " + text
}
