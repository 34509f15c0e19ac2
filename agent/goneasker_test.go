// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// The holder stops its child for an ask, and meanwhile the pod that asked is deleted. The release still
// names that pod. Another pod gives the named pod a second, and the old holder two seconds.
func TestDeletedAskerDelaysTheNextChildOnlyBriefly(t *testing.T) {
	for name, end := range map[string]func(asker *pod){
		"its shim has ended": func(asker *pod) {
			asker.gates.report("new", func(r *gate.Report) { r.Connected, r.Dead, r.Phase = false, true, gate.Ended })
		},
		"its machine has vanished": func(asker *pod) { asker.kill() },
		"its agent is stopping":    func(asker *pod) { close(asker.stop) },
		// The named pod learns of its deletion before it acquires the slot, or gives the slot back.
		"its stop signal was lost": func(*pod) {},
	} {
		for standbys := range 2 {
			t.Run(fmt.Sprintf("%s, %d standbys", name, standbys), func(t *testing.T) {
				simulate(t, func(w *world) {
					s := w.serve(standbys)
					s.holder.gates.shims["s1"].stop = 10 * time.Second
					n := w.start("n", of(newRevision), lingering(&ports{}))
					n.connect("new")
					w.within(5*time.Second, "the child stops", func() bool { return s.holder.gates.phase("s1") == gate.Draining })
					w.pass(time.Second)
					n.delete()
					end(n)
					w.within(10*time.Second, "the child has ended", s.holder.stopped)
					took := w.within(3*time.Second, "another child runs", func() bool {
						return s.holder.running("s1") || standbys == 1 && s.others[0].running("b")
					})
					assert.LessOrEqual(t, took, time.Duration(2-standbys)*time.Second+200*time.Millisecond)
					assert.Empty(t, n.gates.shim("new").ran, "the deleted pod starts no child")
				})
			})
		}
	}
}
