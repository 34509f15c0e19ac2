// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"net/http"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/api"
)

// prober answers the exec probes of a script. The monitor is real, and the script decides which
// child the monitor sees.
type prober struct {
	monitor *probe.Monitor
	verdict probe.Result
}

// The commands of scripts for probes:
//
//	prober SOCKET [COMMAND…] answer on the socket; with a command, the probes
//	                         of the container app run the command
//	child SHIM HOLD, ! child app has a child of that hold, or has no child
//	verdict PASS|WORDS       the result of probes that are not commands
//	ready, ! ready           wait until app is ready, or is not
//	silence SOCKET           accept connections, and never answer
var commandsOfProbes = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"prober": proberCommand,
	"child": func(ts *testscript.TestScript, neg bool, args []string) {
		children := map[string]probe.Child{}
		if !neg {
			children["app"] = probe.Child{Shim: args[0], Hold: args[1], Age: time.Hour, Serving: true}
		}
		worldOf(ts).prober.monitor.Follow(children)
	},
	"verdict": func(ts *testscript.TestScript, _ bool, args []string) {
		w := worldOf(ts)
		w.change(func() {
			w.prober.verdict = probe.Result{Outcome: probe.Failure, Output: args[0]}
			if args[0] == "PASS" {
				w.prober.verdict = probe.Result{Outcome: probe.Success}
			}
		})
	},
	"ready": func(ts *testscript.TestScript, neg bool, _ []string) {
		m := worldOf(ts).prober.monitor
		late := time.After(patience)
		for m.Ready() == neg {
			select {
			case <-m.News():
			case <-late:
				ts.Fatalf("ready: %v", m.Ready())
			}
		}
	},
	"silence": func(ts *testscript.TestScript, _ bool, args []string) {
		l, err := linux.Socket("unix", ts.MkAbs(args[0]), 0o777)
		ts.Check(err)
		ts.Defer(func() { l.Close() })
	},
}

func init() {
	maps.Copy(commandsOfScripts, commandsOfProbes)
}

func proberCommand(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	// With thresholds of one, and without a period, each result counts.
	p := &api.Probe{TimeoutSeconds: 2, SuccessThreshold: 1, FailureThreshold: 1}
	p.TCPSocket = &api.TCPSocketAction{Port: 1}
	if len(args) > 1 {
		p.Handler = api.Handler{Exec: &api.ExecAction{Command: args[1:]}}
	}
	o := &prober{verdict: probe.Result{Outcome: probe.Success}}
	w.prober = o
	o.monitor = probe.New(probe.Config{
		Probes: map[string]api.Probes{"app": {Readiness: p, Liveness: p}},
		Do: func(context.Context, api.Handler, string, time.Duration) probe.Result {
			w.mu.Lock()
			defer w.mu.Unlock()
			return o.verdict
		},
		Run: func(ctx context.Context, child probe.Child, command []string, timeout time.Duration) probe.Result {
			r, err := w.actingAgent().server.RunAside(ctx, w.idOf(shimOf(ts, child.Shim)), command, timeout)
			switch {
			case err != nil:
				return probe.Result{Output: err.Error()}
			case r.TimedOut:
				return probe.TimedOut(command, timeout)
			}
			return probe.Exited(r.Code, string(r.Output))
		},
	})
	l, err := linux.Socket("unix", ts.MkAbs(args[0]), 0o777)
	ts.Check(err)
	server := &http.Server{Handler: o.monitor.ExecHandler(), ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(l) }()
	ts.Defer(func() {
		server.Close()
		o.monitor.Close()
	})
}
