// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// notReturned is the exit code of [holdInTerminal] if the terminal is left to a dead command.
const notReturned = 100

func init() {
	if len(os.Args) > 2 && os.Args[1] == "hold-in-terminal" {
		holdInTerminal(os.Args[2:])
	}
}

// holdInTerminal runs a command as hold does once it has the lock.
func holdInTerminal(command []string) {
	never := int64(linux.Now() + time.Hour)
	p, err := startGuard(holding{command: command}, "4711", never, never)
	if err != nil {
		panic(err)
	}
	code := <-p.ended()
	if foreground, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err != nil || foreground != unix.Getpgrp() {
		code = notReturned
	}
	os.Exit(code)
}

// newTerminal returns both ends of a terminal.
func newTerminal(t *testing.T) (keys, tty *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { keys.Close() })
	n, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0))
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { tty.Close() })
	return keys, tty
}

// The command has the terminal, and the person's shell gets it back.
func TestHoldInATerminal(t *testing.T) {
	for name, c := range map[string]struct {
		script, keys string
		code         int
	}{
		"a line":                 {"echo > $1/ready; read code; exit $code", "3\n", 3},
		"Ctrl-C":                 {`trap "exit 5" INT; echo > $1/ready; while :; do sleep 0.01; done`, "\x03", 5},
		"Ctrl-C kills":           {`echo > $1/ready; exec sleep 600`, "\x03", 130},
		"Ctrl-Z stops nothing":   {`echo > $1/ready; read code; exit $code`, "\x1a4\n", 4},
		"a setting of the shell": {`stty -echo && echo > $1/ready; exit 6`, "", 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, tty := newTerminal(t)
			dir := t.TempDir()
			hold := exec.CommandContext(t.Context(), os.Args[0], "hold-in-terminal", "/bin/sh", "-c", c.script, "sh", dir)
			var said bytes.Buffer
			hold.Stdin, hold.Stdout, hold.Stderr = tty, tty, &said
			hold.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
			require.NoError(t, hold.Start())
			go func() { _, _ = io.Copy(io.Discard, keys) }()
			textOf(t, filepath.Join(dir, "ready"))
			require.Eventually(t, func() bool {
				foreground, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPGRP)
				return c.keys == "" || err == nil && foreground != hold.Process.Pid
			}, 20*time.Second, time.Millisecond, "the command has the terminal")
			_, err := keys.WriteString(c.keys)
			require.NoError(t, err)
			ended := make(chan error, 1)
			go func() { ended <- hold.Wait() }()
			select {
			case err := <-ended:
				if _, is := errors.AsType[*exec.ExitError](err); !is {
					require.NoError(t, err)
				}
				assert.Equal(t, c.code, hold.ProcessState.ExitCode(), said.String())
			case <-time.After(30 * time.Second):
				require.Fail(t, "the command does not end")
			}
		})
	}
}
