// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"encoding/json"
	"fmt"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// ledger remembers, over the agent's restarts, which shim of each container was
// last granted which hold and is not yet proven dead. A note is never a grant.
type ledger struct {
	notes   Notes
	bootID  string
	entries map[string]entry // by container
}

type entry struct {
	Shim   gate.ShimID `json:"shim"`
	Hold   string      `json:"hold"`
	BootID string      `json:"bootID"`
}

func openLedger(notes Notes, bootID string, ownKernel bool) (*ledger, error) {
	all, err := notes.Read()
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &ledger{notes: notes, bootID: bootID, entries: map[string]entry{}}
	for container, note := range all {
		e := parseEntry(note)
		if e.BootID != "" && e.BootID != bootID && !ownKernel {
			// The note is of another boot, so whatever ran then is dead.
			if err := l.clear(container); err != nil {
				return nil, err
			}
			continue
		}
		l.entries[container] = e
	}
	return l, nil
}

func parseEntry(note []byte) entry {
	var e entry
	if json.Unmarshal(note, &e) != nil || e.Hold == "" {
		return entry{Hold: gate.Unreadable}
	}
	return e
}

// record notes that the shim is about to be granted the hold.
func (l *ledger) record(container string, shim gate.ShimID, hold string) error {
	e := entry{Shim: shim, Hold: hold, BootID: l.bootID}
	if l.entries[container] == e {
		return nil
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := l.notes.Write(container, b); err != nil {
		return err
	}
	l.entries[container] = e
	return nil
}

// clear removes a note whose hold is proven over. A note that cannot be removed stays
// only on the disk. For the next agent process its hold is unproven again, which is
// safe.
func (l *ledger) clear(container string) error {
	delete(l.entries, container)
	if err := l.notes.Remove(container); err != nil {
		return fmt.Errorf("clear the note of a grant: %w", err)
	}
	return nil
}

// unproven returns the hold under which the shim gets no grant. Another shim of the
// container was granted that hold, and is not known to be dead.
func (l *ledger) unproven(container string, shim gate.ShimID) string {
	e := l.entries[container]
	if e.Shim == shim {
		return ""
	}
	return e.Hold
}

// granted tells whether a shim of the container may have been granted the hold, and
// is not known to be dead.
func (l *ledger) granted(container, hold string) bool {
	noted := l.entries[container].Hold
	return noted == hold || noted == gate.Unreadable
}
