// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// These are the names of the notes in the Volume. A crash of the machine may leave half of a
// note. From such a note, the agent knows only that a container may have run.
const (
	// letStart is the name of the note that is written before any application container may
	// start.
	letStart = "let-start"
	// The constant "before" is the name that the note letStart gets at a restart of all
	// containers. The restart does not prove that the earlier processes are dead.
	before = "let-start.before"
)

// note records the hold under which the application's containers may run.
type note struct {
	Shim  gate.ShimID `json:"shim"`
	Hold  string      `json:"hold"`
	Slots gate.Slots  `json:"slots"`
	// EndsAt is the CLOCK_BOOTTIME instant at which the agent's process ends, so that the
	// kubelet restarts the containers. Each renewal moves this instant to a later one.
	EndsAt time.Duration `json:"leave"`
	BootID string        `json:"bootID"`
}

// MoveNote renames the note "let-start" to "let-start.before". MoveNote runs in an init container
// before the agent's container, each time that the kubelet starts all containers of the pod.
func MoveNote(v Volume) error {
	err := v.Rename(letStart, before)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rename the note of a start: %w", err)
	}
	return nil
}

// readNote reads a note; nil if the note does not exist. An error means that the note exists,
// but is unreadable.
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

// write replaces the note in one step: a reader finds the old note or the new one.
func (n *note) write(v Volume) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return v.Write(letStart, b)
}
