// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
)

const statusUsage = `Shows slots: the holder, since when, its token, when it renewed, since when its
application serves, pauses, the standbys and why they stand by, and the last
handovers. It only reads. Without SLOTS it shows all of the namespace.

Times are those that the pods' machines wrote. A handover's duration is that
between the Events of release and acquisition, in whole seconds; without such
Events there is none. -w goes on, and shows each slot that changes; a renewal
is no change.

Exit codes: 0 each claimed slot has a holder that serves (of a once claim: a
holder), or is paused; 1 one has none; 2 error.

  kubectl metaparticle status [-n NAMESPACE|-A] [-w] [-o json|yaml] [SLOTS]
`

func statusCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newFlags("status", statusUsage, std)
	v := view{std: std, now: time.Now}
	var all bool
	flags.BoolVar(&all, "A", false, "all namespaces")
	flags.BoolVar(&all, "all-namespaces", false, "all namespaces")
	flags.BoolVar(&v.watch, "w", false, "go on, and show what changes")
	flags.BoolVar(&v.watch, "watch", false, "go on, and show what changes")
	flags.StringVar(&v.output, "o", "", "json or yaml; default: text for people")
	rest, err := parse(flags, args)
	switch {
	case err != nil:
		return exitError, err
	case v.output != "" && v.output != "json" && v.output != "yaml":
		return exitError, fmt.Errorf("-o is %q: write json or yaml", v.output)
	case all && len(rest) > 0:
		return exitError, fmt.Errorf("-A shows all slots of all namespaces: leave out %q", strings.Join(rest, " "))
	}
	c, namespace, err := connection.open()
	if err != nil {
		return exitError, err
	}
	if all {
		namespace = ""
	}
	return v.run(ctx, c, namespace, rest)
}

// view shows slots, once or as they change.
type view struct {
	std    stdio
	output string
	watch  bool
	now    func() time.Time
}

func (v view) run(ctx context.Context, c cluster, namespace string, args []string) (int, error) {
	var only []string
	if len(args) > 0 {
		s, err := findSoon(ctx, c, namespace, args)
		if err != nil {
			return exitError, err
		}
		only = s.slots
	}
	if v.watch {
		return exitOK, v.follow(ctx, c, namespace, only)
	}
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	state, notes, err := c.read(bounded, namespace)
	if err != nil {
		return exitError, err
	}
	for _, note := range notes {
		fmt.Fprintln(v.std.err, "note:", note)
	}
	slots := state.statuses(only)
	code := exitOK
	for _, s := range slots {
		if !s.healthy() {
			code = exitRefused
		}
	}
	if len(slots) == 0 && v.output == "" {
		fmt.Fprintln(v.std.err, "no slots")
		return code, nil
	}
	return code, v.write(slots, namespace == "")
}

// follow shows the slots, and then each slot that changes, until ctx ends.
func (v view) follow(ctx context.Context, c cluster, namespace string, only []string) error {
	shown := map[types.NamespacedName]slotStatus{}
	err := c.follow(ctx, namespace, func(state objects) error {
		var changed []slotStatus
		for _, s := range state.statuses(only) {
			key := types.NamespacedName{Namespace: s.Namespace, Name: s.Slot}
			if before, ok := shown[key]; !ok || !reflect.DeepEqual(lasting(before), lasting(s)) {
				changed = append(changed, s)
			}
			shown[key] = s
		}
		if len(changed) == 0 {
			return nil
		}
		return v.write(changed, namespace == "")
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// lasting returns the slot without the field that changes with each renewal.
func lasting(s slotStatus) slotStatus {
	if s.Holder != nil {
		holder := *s.Holder
		holder.Renewed = nil
		s.Holder = &holder
	}
	return s
}

func (v view) write(slots []slotStatus, namespaces bool) error {
	switch v.output {
	case "json":
		text, err := json.MarshalIndent(map[string]any{"slots": slots}, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(v.std.out, string(text))
		return err
	case "yaml":
		text, err := yaml.Marshal(map[string]any{"slots": slots})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(v.std.out, "---\n%s", text)
		return err
	}
	var b strings.Builder
	for _, s := range slots {
		v.text(&b, s, namespaces)
	}
	_, err := io.WriteString(v.std.out, b.String())
	return err
}

// text writes one slot for people: a line, and below it a line for each standby and
// each handover.
func (v view) text(b *strings.Builder, s slotStatus, namespaces bool) {
	name := s.Slot
	if namespaces {
		name = s.Namespace + "/" + name
	}
	fmt.Fprintf(b, "%s: %s\n", name, v.summary(s))
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, p := range s.Standbys {
		ready := "not Ready"
		if p.Ready {
			ready = "Ready"
		}
		fmt.Fprintf(table, "  standby\t%s\t%s\t%s: %s\n", p.Pod, ready, p.Reason, p.Message)
	}
	for _, h := range s.Handovers {
		fmt.Fprintf(table, "  handover\t%s\t%s ago\t%s\n", h.Pod, age(v.now(), h.At), h.text())
	}
	table.Flush()
	if len(s.Handovers) == 0 && s.Transitions > 0 {
		fmt.Fprintf(b, "  the holder has changed %d times; no Event tells more\n", s.Transitions)
	}
}

// summary returns a slot's line for people.
func (v view) summary(s slotStatus) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch h := s.Holder; {
	case s.Missing:
		return "a " + s.Kind + " without a Lease of enroll"
	case h == nil:
		add("%s, nobody holds", s.Kind)
	default:
		add("%s, held by %s", s.Kind, h.Pod)
		v.holder(s, add)
	}
	if s.Kind == "shards" {
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
	for _, key := range slices.Sorted(maps.Keys(s.Failures)) {
		add("failed for %s: %s", key, api.TimesInARow(s.Failures[key]))
	}
	if len(s.Done) > 0 {
		add("done: %s", strings.Join(s.Done, " "))
	}
	if n := len(s.Standbys); n == 1 {
		add("1 standby")
	} else {
		add("%d standbys", n)
	}
	return strings.Join(parts, ", ")
}

// holder adds the facts about the holder to a slot's line.
func (v view) holder(s slotStatus, add func(string, ...any)) {
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
	if h.ServingSince != nil {
		add("serves for %s", age(v.now(), *h.ServingSince))
	} else if h.Hold != "" && s.Kind != "once" {
		add("does not serve")
	}
}

// text returns the facts about a handover, for people.
func (h handover) text() string {
	if h.From == "" {
		return "acquired; no Event tells of a release before it"
	}
	text := "from " + h.From
	if h.Reason != "" {
		text += " (" + h.Reason + ")"
	}
	if *h.Seconds < 1 {
		return text + ", within 1s"
	}
	return fmt.Sprintf("%s, %.0fs after its release", text, *h.Seconds)
}

// shardsOf tells for which shards a Lease is open.
func shardsOf(s api.Stamp) string {
	text := fmt.Sprintf("%d shards", s.Count)
	if s.Run != "" {
		text += " in the run " + s.Run
	}
	if s.Closed {
		return "closed for a change to " + text
	}
	return "for " + text
}
