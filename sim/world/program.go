// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// program is a process that uses the local API of its pod. The process has several bidders.
type program struct {
	*engine.Process
	pod   *LocalPod
	where string
	// FrozenAlone reports that the process is frozen, but not its node. The field "iced" reports
	// that a shim has frozen the process.
	FrozenAlone, iced bool
}

// runProgram starts the process of the program.
func (p *LocalPod) runProgram() {
	p.Program = &program{Process: p.w.NewProcess(), pod: p, where: fmt.Sprintf("%s/app#%d", p.Name, p.starts)}
	if p.Node.frozen {
		p.Program.Process.Freeze()
	}
	p.w.Note(p.Program.where, "program starts")
	for _, b := range p.Bidders {
		b.begin(p.Program)
	}
	p.Adder.begin(p.Program)
}

// kill ends the program and all its work. The kernel closes the program's connections.
func (g *program) kill() {
	g.pod.w.Note(g.where, "program is dead")
	for _, b := range g.pod.Bidders {
		b.ends("dies with its program")
		b.hangUp()
		b.Hold = nil
	}
	g.pod.Adder.die()
	g.Die()
}

// FreezeAlone freezes the program, but not its node.
func (g *program) FreezeAlone(last time.Duration) {
	g.FrozenAlone = true
	g.Process.Freeze()
	g.pod.w.Note(g.where, "program is frozen for %v", last)
	g.pod.w.After(last, g.ThawAlone)
}

// ThawAlone undoes FreezeAlone.
func (g *program) ThawAlone() {
	if g.FrozenAlone && !g.Dead {
		g.FrozenAlone = false
		g.pod.w.Note(g.where, "program thaws")
		if !g.pod.Node.frozen && !g.iced {
			g.goOn()
		}
	}
}

// goOn lets the program go on after a freeze. The program first reads its clock.
func (g *program) goOn() {
	for _, b := range g.pod.Bidders {
		b.look()
	}
	g.Process.Thaw()
}

// ices freezes the program until the leash lets the program go on.
func (g *program) ices() {
	g.iced = true
	g.pod.w.Note(g.where, "program is frozen by its shim")
	g.Process.Freeze()
}

// melts lets the program go on after the method "ices". The shim thaws the program only after
// the agent has answered the leap of the wall clock. So melts dates the last answer to each
// bidder to this instant. From then on the checks no longer excuse the program's work because of
// the leap.
func (g *program) melts() {
	if !g.iced || g.Dead {
		return
	}
	g.iced = false
	g.pod.w.Note(g.where, "program goes on")
	for _, b := range g.pod.Bidders {
		if b.work != nil {
			b.work.toldAt = g.pod.w.Now()
		}
	}
	if !g.FrozenAlone && !g.pod.Node.frozen {
		g.goOn()
	}
}
