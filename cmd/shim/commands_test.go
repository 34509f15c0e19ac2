// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

// The commands of scripts, besides testscript's own:
//
//	serve NAME                        start a server; the server acts once it has the flock
//	hangup NAME                       end the server, as if killed
//	acting NAME, ! acting NAME        wait until the server acts; require that it does not yet
//	shim [-pid1 -tty -uid N -caps NAMES -container C] NAME [exec's flags] -- COMMAND…
//	grant SHIM HOLD DEADLINE DRAIN KILL [SLOT=TOKEN…]   DEADLINE from now
//	drain SHIM GRACE [REASON]
//	notify SHIM LINE                  let a waiting shim write a line into its log
//	dismiss SHIM CODE [REASON]        order a waiting shim to end without a child
//	end SHIM GRACE [REASON]           as drain, and the container ends
//	aside SHIM TIMEOUT COMMAND…       run a command beside the child, and print its result
//	enter SHIM COMMAND…               run a command in the namespace of a shim with -pid1, as kubectl exec does
//	report SHIM KEY=VALUE…            wait until the shim's last report has these values
//	says SHIM REGEXP, ! says …        wait until the output matches; require that it does not
//	types SHIM TEXT                   type on the shim's terminal
//	signal SHIM SIGNAL                send a signal to the shim only
//	freeze SHIM, thaw SHIM            stop only the shim, or continue it
//	leap SHIM DURATION                move the wall clock of the shim by the duration
//	answer SHIM HOLD DEADLINE         send a grant that answers the shim's last leap
//	stands SHIM, ! stands SHIM        wait until all of its processes are stopped, or none
//	exits SHIM CODE, ! exits SHIM     wait for the shim's end; require that the shim lives
//	alive SHIM, ! alive SHIM          require that another process of its container lives, or none
//	dies SHIM                         wait until no other process of its container lives
//	intime SHIM                       require that the deadline of the last grant is ahead
//	past SHIM                         wait until the deadline of the last grant has passed
//	hang FILE                         let each process that opens or executes the file hang
var commandsOfScripts = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"serve": func(ts *testscript.TestScript, _ bool, args []string) { worldOf(ts).startAgent(args[0]) },
	"hangup": func(ts *testscript.TestScript, _ bool, args []string) {
		a := worldOf(ts).agents[args[0]]
		a.cancel()
		<-a.done
	},
	"acting":  acting,
	"shim":    shimCommand,
	"grant":   grantCommand,
	"drain":   drainCommand,
	"dismiss": dismissCommand,
	"notify":  notifyCommand,
	"end":     endCommand,
	"aside":   asideCommand,
	"enter":   enter,
	"report":  report,
	"says":    says,
	"types": func(ts *testscript.TestScript, _ bool, args []string) {
		_, err := io.WriteString(shimOf(ts, args[0]).tty, strings.NewReplacer("^C", "\x03", "^Z", "\x1a", `\n`, "\n").Replace(args[1]))
		ts.Check(err)
	},
	"signal": func(ts *testscript.TestScript, _ bool, args []string) {
		signalShim(ts, args[0], unix.SignalNum(args[1]))
	},
	"freeze": func(ts *testscript.TestScript, _ bool, args []string) { signalShim(ts, args[0], unix.SIGSTOP) },
	"thaw":   func(ts *testscript.TestScript, _ bool, args []string) { signalShim(ts, args[0], unix.SIGCONT) },
	"leap":   leapCommand,
	"answer": answerCommand,
	"stands": stands,
	"exits":  exits,
	"alive":  alive,
	"dies":   dies,
	"intime": func(ts *testscript.TestScript, _ bool, args []string) {
		if late := linux.Now() - worldOf(ts).grants[args[0]]; late > 0 {
			ts.Fatalf("%v past the deadline", late)
		}
	},
	"past": func(ts *testscript.TestScript, _ bool, args []string) {
		<-time.After(worldOf(ts).grants[args[0]] - linux.Now())
	},
	"hang": hang,
}

// hang takes a file lease (fcntl), as file servers do. The kernel makes a process that opens
// the file wait until the lease is given back, but for 45 s at most. No script waits for so
// long.
func hang(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { f.Close() })
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	ts.Check(err)
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func shimOf(ts *testscript.TestScript, name string) *shimProcess {
	s := worldOf(ts).shims[name]
	if s == nil {
		ts.Fatalf("no shim %s", name)
	}
	return s
}

func acting(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	is := func() bool { return w.acting != nil && w.acting.name == args[0] }
	if neg {
		w.mu.Lock()
		defer w.mu.Unlock()
		if is() {
			ts.Fatalf("%s acts", args[0])
		}
		return
	}
	if !w.until(is) {
		ts.Fatalf("%s does not act", args[0])
	}
}

func shimCommand(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	var o shimOptions
	flags := flag.NewFlagSet("shim", flag.ContinueOnError)
	flags.BoolVar(&o.pid1, "pid1", false, "")
	flags.BoolVar(&o.tty, "tty", false, "")
	flags.StringVar(&o.uid, "uid", "", "")
	flags.StringVar(&o.caps, "caps", "", "")
	flags.StringVar(&o.container, "container", "", "")
	ts.Check(flags.Parse(args))
	args = flags.Args()
	if o.container == "" {
		o.container = args[0]
	}
	// The shim runs a copy of the binary that every user may execute, installed as in a pod.
	if _, err := os.Stat(filepath.Join(w.env.WorkDir, "bin", "agent")); err != nil {
		ts.Check(shim.OpenDirs(w.run, filepath.Join(w.run, gate.GrantedDir)))
		ts.Check(shim.Install(self, filepath.Join(w.env.WorkDir, "bin", "agent")))
	}
	o.path = ts.Getenv("PATH")
	ts.Check(w.startShim(args[0], o, append([]string{
		"exec", "-container", o.container, "-socket", filepath.Join(w.run, "agent.sock"),
	}, args[1:]...)))
}

func grantCommand(ts *testscript.TestScript, neg bool, args []string) {
	w, s := worldOf(ts), shimOf(ts, args[0])
	var d [3]time.Duration
	for i := range d {
		var err error
		d[i], err = time.ParseDuration(args[2+i])
		ts.Check(err)
	}
	g := gate.Grant{Hold: args[1], Deadline: linux.Now() + d[0], Drain: d[1], Kill: d[2], PodIP: "127.0.0.1"}
	var slots []api.Token
	for _, a := range args[5:] {
		slot, token, _ := strings.Cut(a, "=")
		slots = append(slots, api.Token{Slot: slot, Token: token})
	}
	g.Slots = gate.SlotsOf(slots)
	if !w.until(func() bool { return s.report.Connected && s.heardBy == w.acting.name }) {
		ts.Fatalf("%s is not connected; its last report, to %q: %+v\n%s", args[0], s.heardBy, s.report, s.output.String())
	}
	err := w.actingAgent().server.Grant(w.idOf(s), g)
	if (err != nil) != neg {
		ts.Fatalf("grant: %v", err)
	}
	if err == nil {
		w.grants[args[0]] = g.Deadline
	}
}

func drainCommand(ts *testscript.TestScript, _ bool, args []string) {
	grace, err := time.ParseDuration(args[1])
	ts.Check(err)
	ts.Check(worldOf(ts).actingAgent().server.Drain(worldOf(ts).idOf(shimOf(ts, args[0])), strings.Join(args[2:], " "), grace))
}

func dismissCommand(ts *testscript.TestScript, _ bool, args []string) {
	code, err := strconv.Atoi(args[1])
	ts.Check(err)
	d := gate.Dismiss{Code: code, Reason: strings.Join(args[2:], " ")}
	ts.Check(worldOf(ts).actingAgent().server.Dismiss(worldOf(ts).idOf(shimOf(ts, args[0])), d))
}

func notifyCommand(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(worldOf(ts).actingAgent().server.Notify(worldOf(ts).idOf(shimOf(ts, args[0])), strings.Join(args[1:], " ")))
}

func endCommand(ts *testscript.TestScript, _ bool, args []string) {
	grace, err := time.ParseDuration(args[1])
	ts.Check(err)
	ts.Check(worldOf(ts).actingAgent().server.End(worldOf(ts).idOf(shimOf(ts, args[0])), strings.Join(args[2:], " "), grace))
}

func asideCommand(ts *testscript.TestScript, neg bool, args []string) {
	timeout, err := time.ParseDuration(args[1])
	ts.Check(err)
	r, err := worldOf(ts).actingAgent().server.RunAside(context.Background(), worldOf(ts).idOf(shimOf(ts, args[0])), args[2:], timeout)
	if (err != nil) != neg {
		ts.Fatalf("aside: %+v, %v", r, err)
	}
	if err == nil {
		_, _ = fmt.Fprintf(ts.Stdout(), "code=%d timedout=%v\n%s", r.Code, r.TimedOut, r.Output)
	}
}

// enter does not wait for the command, whose output is that of the shim. Only the command, and not nsenter, counts as a
// process of the container.
func enter(ts *testscript.TestScript, _ bool, args []string) {
	w, s := worldOf(ts), shimOf(ts, args[0])
	cmd := exec.Command("nsenter", append([]string{
		"--target", strconv.Itoa(w.pidOf(s)), "--pid", "env", "MARK=" + w.mark(args[0]),
	}, args[1:]...)...)
	cmd.Stdout, cmd.Stderr = collector{w, s}, collector{w, s}
	ts.Check(cmd.Start())
	// cmd.Wait would also wait for the command, which the end of the world kills, and which keeps the output open.
	go func() { _, _ = cmd.Process.Wait() }()
}

func report(ts *testscript.TestScript, _ bool, args []string) {
	w, s := worldOf(ts), shimOf(ts, args[0])
	ok := w.until(func() bool {
		r := s.report
		is := map[string]string{
			"phase": string(r.Phase), "hold": r.Hold, "unproven": r.Unproven, "by": s.heardBy,
			"connected": strconv.FormatBool(r.Connected), "dead": strconv.FormatBool(r.Dead),
			"silent": strconv.FormatBool(r.Silent), "slots": fmt.Sprint(r.Slots.List()),
			"leap":     strconv.FormatBool(r.Leap != 0),
			"starting": strconv.FormatBool(r.Starting), "trouble": r.Trouble.Reason,
		}
		return s.id != "" && !slices.ContainsFunc(args[1:], func(a string) bool {
			key, value, _ := strings.Cut(a, "=")
			got, known := is[key]
			return !known || got != value
		})
	})
	if !ok {
		ts.Fatalf("last report of %s by %s: %+v\noutput:\n%s", args[0], s.heardBy, s.report, s.output.String())
	}
}

func says(ts *testscript.TestScript, neg bool, args []string) {
	w, s := worldOf(ts), shimOf(ts, args[0])
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	matches := func() bool { return re.Match(s.output.Bytes()) }
	var ok bool
	if neg {
		w.mu.Lock()
		ok = !matches()
		w.mu.Unlock()
	} else {
		ok = w.until(matches)
	}
	if !ok {
		ts.Fatalf("output of %s:\n%s", args[0], s.output.String())
	}
}

func signalShim(ts *testscript.TestScript, name string, sig syscall.Signal) {
	ts.Check(syscall.Kill(worldOf(ts).pidOf(shimOf(ts, name)), sig))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	w, s := worldOf(ts), shimOf(ts, args[0])
	if neg {
		w.mu.Lock()
		defer w.mu.Unlock()
		if s.exited != nil {
			ts.Fatalf("%s ended: %v\n%s", args[0], s.exited, s.output.String())
		}
		return
	}
	if !w.until(func() bool { return s.exited != nil }) {
		ts.Fatalf("%s does not end; its last report: %+v\n%s", args[0], s.report, s.output.String())
	}
	if got := strconv.Itoa(s.exited.ExitCode()); got != args[1] {
		ts.Fatalf("%s: %v, want %s\n%s", args[0], s.exited, args[1], s.output.String())
	}
}

func alive(ts *testscript.TestScript, neg bool, args []string) {
	if pids := worldOf(ts).alive(args[0]); (len(pids) > 0) == neg {
		ts.Fatalf("alive of %s: %v", args[0], pids)
	}
}

// dies waits until no other process of the shim's container lives. A shim kills these processes
// when the shim ends. A shim that is PID 1 ends after these processes. Any other shim may end
// before them.
func dies(ts *testscript.TestScript, _ bool, args []string) {
	for _, pid := range worldOf(ts).alive(args[0]) {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		ts.Check(err)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
		ts.Check(errors.Join(err, unix.Close(fd)))
		if n == 0 {
			ts.Fatalf("%s is alive: %d", args[0], pid)
		}
	}
}
