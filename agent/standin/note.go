// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package standin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// The notes in the Volume. A machine that crashed may leave half of a note behind:
// such a note says that something ran, and nothing more.
const (
	// letStart: since this was written the application's containers may run.
	letStart = "let-start"
	// before: the let-start of containers that the kubelet has restarted since,
	// by its own word. That is no proof.
	before = "let-start.before"
)

// note is under which hold the application's containers were let start.
type note struct {
	Shim  gate.ShimID      `json:"shim"`
	Hold  string           `json:"hold"`
	Slots []gate.SlotToken `json:"slots"`
	// Leave is the CLOCK_BOOTTIME instant at which the drain begins, unless
	// the hold was renewed since.
	Leave  time.Duration `json:"leave"`
	BootID string        `json:"bootID"`
}

// Turn is done once before each round of the pod's containers, by an init
// container in front of the agent: what was let start before is of an earlier
// round from here on.
func Turn(v Volume) error {
	err := v.Rename(letStart, before)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("turn the note of what may run: %w", err)
	}
	return nil
}

// readNote reads a note; nil if there is none. An error says that there is one.
func readNote(v Volume, name string) (*note, error) {
	b, err := v.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	n := new(note)
	if err == nil {
		err = json.Unmarshal(b, n)
	}
	if err == nil && (n.Hold == "" || n.Shim == "" || n.BootID == "") {
		err = errors.New("incomplete")
	}
	if err != nil {
		return nil, fmt.Errorf("read the note %s: %w", name, err)
	}
	return n, nil
}

// write replaces the note.
func (n *note) write(v Volume) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return v.Write(letStart, b)
}
