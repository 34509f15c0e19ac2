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

// These are the names of the notes in the Volume. A crash of the machine may leave half
// a note. Then the agent knows only that a container may have run.
const (
	// letStart is the note without which no application container may start.
	letStart = "let-start"
	// A restart of all containers gives the note letStart this name. The restart does not
	// prove that the earlier processes are dead.
	before = "let-start.before"
)

// note records the hold under which the application's containers were started.
type note struct {
	Shim  gate.ShimID      `json:"shim"`
	Hold  string           `json:"hold"`
	Slots []gate.SlotToken `json:"slots"`
	// Leave is the CLOCK_BOOTTIME instant at which the agent's process ends, so that
	// the kubelet restarts the containers. Each renewal moves that instant.
	Leave  time.Duration `json:"leave"`
	BootID string        `json:"bootID"`
}

// Turn runs in an init container in front of the agent, each time that the kubelet
// starts all containers of the pod. Turn gives the note "let-start" the name
// "let-start.before".
func Turn(v Volume) error {
	err := v.Rename(letStart, before)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("turn the note of what may run: %w", err)
	}
	return nil
}

// readNote reads a note, and returns nil if there is none. An error means that a
// note exists and is unreadable.
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

// write replaces the note atomically: a reader finds the old note or the new one.
func (n *note) write(v Volume) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return v.Write(letStart, b)
}
