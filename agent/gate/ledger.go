// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ledger remembers, over the agent's restarts, which shim of each container was
// last granted which hold and is not yet proven dead. It is a note of what is
// unproven, never a grant.
//
// The notes are not synced to the disk: what they are about does not outlive
// the kernel whose page cache holds them.
type ledger struct {
	dir     string
	bootID  string
	entries map[string]entry // by container
}

type entry struct {
	Shim   ShimID `json:"shim"`
	Hold   string `json:"hold"`
	BootID string `json:"bootID"`
}

func openLedger(dir, bootID string, ownKernel bool) (*ledger, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &ledger{dir: dir, bootID: bootID, entries: map[string]entry{}}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".new") || f.IsDir() {
			continue
		}
		e := read(filepath.Join(dir, f.Name()))
		if e.BootID != "" && e.BootID != bootID && !ownKernel {
			// Another boot: whatever ran then is dead.
			if err := l.clear(f.Name()); err != nil {
				return nil, err
			}
			continue
		}
		l.entries[f.Name()] = e
	}
	return l, nil
}

func read(path string) entry {
	var e entry
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &e) != nil || e.Hold == "" {
		return entry{Hold: Unreadable}
	}
	return e
}

// record notes that the shim is about to be granted the hold.
func (l *ledger) record(container string, shim ShimID, hold string) error {
	e := entry{Shim: shim, Hold: hold, BootID: l.bootID}
	if l.entries[container] == e {
		return nil
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	path := filepath.Join(l.dir, container)
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	l.entries[container] = e
	return nil
}

// clear takes a note out whose hold is proven over. A note that cannot be
// removed stays on the disk only, and is unproven again for the next agent
// process: the safe side.
func (l *ledger) clear(container string) error {
	delete(l.entries, container)
	if err := os.Remove(filepath.Join(l.dir, container)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clear the note of a grant: %w", err)
	}
	return nil
}

// unproven is the hold that keeps the shim from a grant of it: granted to
// another shim of the container that is not known to be dead.
func (l *ledger) unproven(container string, shim ShimID) string {
	e := l.entries[container]
	if e.Shim == shim {
		return ""
	}
	return e.Hold
}
