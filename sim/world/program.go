// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// program is a process that uses the local API of its pod, by several bidders.
type program struct {
	*engine.Process
	pod   *localPod
	where string
	// frozen reports that the process is frozen, but not its node. The field iced reports that its
	// shim has frozen the process.
	frozen, iced bool
}

// runProgram starts the process of the program.
func (p *localPod) runProgram() {
	p.program = &program{Process: p.w.NewProcess(), pod: p, where: fmt.Sprintf("%s/app#%d", p.name, p.starts)}
	if p.node.frozen {
		p.program.Process.Freeze()
	}
	p.w.Note(p.program.where, "program starts")
	for _, b := range p.bidders {
		b.begin(p.program)
	}
	p.adder.begin(p.program)
}

// kill ends the program and all its work. The kernel closes the program's connections.
func (g *program) kill() {
	g.pod.w.Note(g.where, "program is dead")
	for _, b := range g.pod.bidders {
		b.ends("dies with its program")
		b.hangUp()
		b.hold = nil
	}
	g.pod.adder.die()
	g.Die()
}

// freezeAlone freezes the program, but not its node.
func (g *program) freezeAlone(last time.Duration) {
	g.frozen = true
	g.Process.Freeze()
	g.pod.w.Note(g.where, "program is frozen for %v", last)
	g.pod.w.After(last, g.thawAlone)
}

// thawAlone undoes freezeAlone.
func (g *program) thawAlone() {
	if g.frozen && !g.Dead {
		g.frozen = false
		g.pod.w.Note(g.where, "program thaws")
		if !g.pod.node.frozen && !g.iced {
			g.goOn()
		}
	}
}

// goOn lets the program go on after a freeze. The program first looks at its clock.
func (g *program) goOn() {
	for _, b := range g.pod.bidders {
		b.look()
	}
	g.Process.Thaw()
}

// still reports whether the program stands still, alone or with its node.
func (g *program) still() bool { return g.Frozen() }

// ices freezes the program until the leash lets it go on.
func (g *program) ices() {
	g.iced = true
	g.pod.w.Note(g.where, "program is frozen by its shim")
	g.Process.Freeze()
}

// melts undoes ices. From now on the last answers count as answers after the leap.
func (g *program) melts() {
	if !g.iced || g.Dead {
		return
	}
	g.iced = false
	g.pod.w.Note(g.where, "program goes on")
	for _, b := range g.pod.bidders {
		if b.work != nil {
			b.work.toldAt = g.pod.w.Now()
		}
	}
	if !g.frozen && !g.pod.node.frozen {
		g.goOn()
	}
}
