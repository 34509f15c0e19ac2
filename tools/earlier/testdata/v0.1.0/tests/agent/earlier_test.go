// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// TestEarlierVersionWritesLeasesOfTwoHolds writes the Lease of a slot at each step of two holds, as the agents of
// v0.1.0 store this Lease.
func TestEarlierVersionWritesLeasesOfTwoHolds(t *testing.T) {
	simulate(t, func(w *world) {
		step := func(name string) {
			l := w.server.lease(theSlot)
			text, err := json.MarshalIndent(&l, "", "  ")
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("EARLIER"), "lease-"+name+".json"), append(text, '\n'), 0o644))
		}
		w.free(theSlot)
		a, b := w.start("a"), w.start("b")
		a.gates.connect(gate.Report{Shim: "s1", Container: "app"})
		w.within(time.Second, "a holds", func() bool { return w.holder() == a.identity() })
		step("acquired")
		w.pass(6 * time.Second)
		step("renewed")
		w.pass(30 * time.Second)
		step("serving")
		b.gates.connect(gate.Report{Shim: "s2", Container: "app"})
		w.pass(10 * time.Second)
		a.kill()
		w.within(time.Minute, "b takes over", func() bool { return w.holder() == b.identity() })
		step("taken")
		w.pass(10 * time.Second)
		b.gates.end("s2")
		w.within(time.Second, "b releases", func() bool { return w.holder() == "" })
		step("released")
	})
}
