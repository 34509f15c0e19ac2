// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

// The scripts run the shim as a process. As in a pod, the file of the program is named agent. The
// children are commands of the system, and the functions in this map.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"agent":         shimOfScripts,
		api.HookProgram: sendHook,
		"stubborn":      stubborn,
		"large":         large,
	})
}

// sendHook sends the HTTP request of a hook, as the agent's program does.
func sendHook() {
	code, err := shim.HandleRole(context.Background(), os.Args[2:], func(ctx context.Context, get api.HTTPGetAction, podIP string) error {
		return probe.SendHook(ctx, get, podIP, "v1.2.3")
	})
	if err != nil {
		panic(err)
	}
	os.Exit(code)
}

// shimOfScripts runs the shim. A shim with a child gets a simulated wall clock, which the script
// moves, because no test may set the real clock.
func shimOfScripts() {
	leaps := os.Getenv("LEAPS")
	if len(os.Args) < 2 || os.Args[1] != api.ExecRole || leaps == "" {
		main()
		return
	}
	cfg, err := shim.ParseConfig(os.Args[2:])
	if err != nil {
		panic(err)
	}
	cfg.Leaps = leapsOf(leaps)
	os.Exit(shim.Exec(cfg))
}

// leapsOf returns the leaps of a fake wall clock. Each line of the file "path" moves that clock by
// a duration.
func leapsOf(path string) *linux.Leaps {
	var ahead atomic.Int64
	l := linux.LeapsOf(linux.Now, func() time.Duration { return time.Duration(time.Now().UnixNano() + ahead.Load()) })
	go func() {
		f, err := os.Open(path)
		if err != nil {
			panic(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			by, err := time.ParseDuration(lines.Text())
			if err != nil {
				panic(err)
			}
			ahead.Add(int64(by))
			l.C <- struct{}{}
		}
	}()
	return l
}

// TestShimFulfillsEachScriptInTestdata runs the scripts in testdata. If the test does not
// run as root, the scripts skip the parts that need PID namespaces or other users.
func TestShimFulfillsEachScriptInTestdata(t *testing.T) {
	t.Parallel()
	heedSignals(t)
	// When a Go process starts, the Go runtime raises the soft limit of open files to the hard
	// limit. The test gives each shim a lower soft limit. So limits.txtar shows whether the
	// shim's child gets this lower limit, and not the raised limit.
	var before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before))
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
	files := syscall.Rlimit{Cur: 1000, Max: before.Max}
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files))
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		WorkdirRoot:         openTempDir(t),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			w := newWorld(env)
			env.Values[worldKey{}] = w
			env.Defer(w.end)
			return nil
		},
		Cmds: commandsOfScripts,
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Getuid() == 0, nil
		},
	})
}

// heedSignals restores the default handling of signals for the processes that the test starts.
// The test's own parent can have ignored signals (nohup, a background job). An exec resets
// handlers, but keeps ignored signals ignored.
func heedSignals(t *testing.T) {
	t.Helper()
	unheard := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(unheard, sig)
		}
	}
	t.Cleanup(func() { signal.Stop(unheard) })
}

// openTempDir returns a temporary directory that other users can enter.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	return dir
}

// stubborn acts as a child that ignores almost every signal, prints a line, and runs on.
func stubborn() {
	for n := syscall.Signal(1); n <= 64; n++ {
		if n != syscall.SIGCHLD && n != syscall.SIGURG {
			signal.Ignore(n)
		}
	}
	_, _ = os.Stdout.WriteString("stubborn\n")
	<-context.Background().Done()
}

// large acts as a child with many pages, which the kernel needs a while to free.
func large() {
	const size = 1 << 30
	b := make([]byte, size)
	for i := 0; i < size; i += os.Getpagesize() {
		b[i] = 1
	}
	_, _ = os.Stdout.WriteString("large\n")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	<-context.Background().Done()
}
