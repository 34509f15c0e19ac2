// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// ledger has the last grant of each container: the shim and the hold. The ledger outlives the
// agent process. Once the shim is proven dead, or the hold is proven over, the ledger removes
// the entry. An entry does not permit a child to run.
type ledger struct {
	notes   Notes
	bootID  string
	entries map[string]entry // the key is the container's name
}

// entry is a note. All containers of the pod can read the note, so the note has only the digest of
// the shim's id. With the id, another process could speak for the shim.
type entry struct {
	Shim   string `json:"shim"`
	Hold   string `json:"hold"`
	BootID string `json:"bootID"`
}

// digest returns the text by which a note names a shim.
func digest(id ShimID) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// names reports whether the note is about the shim.
func (e entry) names(id ShimID) bool { return e.Shim == digest(id) }

func openLedger(notes Notes, bootID string, ownKernel bool) (*ledger, error) {
	all, err := notes.Read()
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &ledger{notes: notes, bootID: bootID, entries: map[string]entry{}}
	for container, note := range all {
		e := parseEntry(note)
		if e.BootID != "" && e.BootID != bootID && !ownKernel {
			// The note comes from an earlier boot, so the shim that it names is dead.
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
		return entry{Hold: Unreadable}
	}
	return e
}

// record writes the note of a grant that the server is about to send.
func (l *ledger) record(container string, shim ShimID, hold string) error {
	e := entry{Shim: digest(shim), Hold: hold, BootID: l.bootID}
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

// clear removes the note about a container. If the file cannot be removed, the next agent process
// reads the note and treats the hold as unproven, which is safe.
func (l *ledger) clear(container string) error {
	delete(l.entries, container)
	if err := l.notes.Remove(container); err != nil {
		return fmt.Errorf("clear the note of a grant: %w", err)
	}
	return nil
}

// unproven returns the hold that the ledger has noted for another shim of the container; empty
// for none. The server refuses to grant that hold to the shim in the argument.
func (l *ledger) unproven(container string, shim ShimID) string {
	e := l.entries[container]
	if e.names(shim) {
		return ""
	}
	return e.Hold
}

// granted reports whether a shim of the container may have had a grant of the hold. A shim that
// the server knows to be dead does not count.
func (l *ledger) granted(container, hold string) bool {
	noted := l.entries[container].Hold
	return noted == hold || noted == Unreadable
}
