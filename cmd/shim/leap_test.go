// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

func leapCommand(ts *testscript.TestScript, _ bool, args []string) {
	_, err := fmt.Fprintln(shimOf(ts, args[0]).leaps, args[1])
	ts.Check(err)
}

func answerCommand(ts *testscript.TestScript, _ bool, args []string) {
	w, s := worldOf(ts), shimOf(ts, args[0])
	within, err := time.ParseDuration(args[2])
	ts.Check(err)
	w.mu.Lock()
	leap := s.report.Leap
	w.mu.Unlock()
	ts.Check(w.actingAgent().server.Grant(w.idOf(s), gate.Grant{
		Hold: args[1], Deadline: linux.Now() + within, Drain: time.Second, Kill: time.Second, Leap: leap,
	}))
}

// stands implements the command that waits until every process of the container, except the shim,
// is stopped. With !, the command waits until none of these processes is stopped. A signal takes a
// moment to arrive.
func stands(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	for late := time.Now().Add(patience); ; {
		pids, stopped := w.alive(args[0]), 0
		for _, pid := range pids {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if _, after, ok := bytes.Cut(stat, []byte(") ")); ok && after[0] == 'T' {
				stopped++
			}
		}
		switch {
		case len(pids) == 0:
			ts.Fatalf("nothing of %s lives", args[0])
		case !neg && stopped == len(pids), neg && stopped == 0:
			return
		case time.Now().After(late):
			ts.Fatalf("%d of %d processes of %s are stopped", stopped, len(pids), args[0])
		}
	}
}
