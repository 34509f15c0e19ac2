// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// newReadWriteModel returns the model of a read-write lock, with an intent and three slots. The pods
// name different sizes, and change between reading and writing.
func newReadWriteModel(s *script, self func(name string) lease.Self) *model {
	m := &model{script: s, began: time.Now()}
	var names []string
	for i := range 4 {
		l := &modelLease{}
		names = append(names, "slot-"+strconv.Itoa(i))
		m.leases = append(m.leases, l)
		m.store(l, lease.Record{UID: "uid-" + names[i]})
	}
	for i := range 2 + s.choose(2) {
		p := &modelPod{
			model: m, name: string(rune('a' + i)), waiting: true, rate: time.Duration(11 + s.choose(3)), readers: 1 + s.choose(3),
			skew: time.Duration(s.choose(3)-1) * 45 * time.Second, names: names, writes: s.choose(2) == 1, boot: time.Duration(i) * time.Hour,
		}
		p.self = self(p.name)
		m.pods = append(m.pods, p)
		p.start()
	}
	return m
}

// beginReadWrite checks the slots of a new hold. A reader has one slot within its size, and a writer has
// all slots.
func (p *modelPod) beginReadWrite(s State) {
	switch {
	case s.Writes && len(s.Tokens) != len(p.names):
		p.model.violate("%s writes under %v", p.name, s.Tokens)
	case !s.Writes && (len(s.Tokens) != 1 || s.Tokens[0].Slot == p.names[0] || s.Tokens[0].Slot > p.names[p.readers]):
		p.model.violate("%s reads under %v", p.name, s.Tokens)
	}
}

// TestReadersAndWritersKeepInvariantsInRandomSchedules plays random schedules of pods that read and
// write under one lock.
func TestReadersAndWritersKeepInvariantsInRandomSchedules(t *testing.T) {
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		t.Run(strconv.Itoa(worker), func(t *testing.T) {
			t.Parallel()
			self, random := identities(t), modelRandom(worker+100) //nolint:gosec // a seed
			for range *schedules / workers / 3 {
				judgeModel(t, random.schedule(), newReadWriteModel, self)
			}
		})
	}
}
