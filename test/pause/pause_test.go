// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pause shows the behaviour of a shim in a virtual machine that is paused. After the pause
// the test sets the virtual machine's wall clock forward. Without a virtual machine the test
// would change the wall clock of the computer on which the test runs.
//
//	make pause KERNEL=/boot/vmlinuz-…
package pause

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pauses is the time for which the machine is paused: several times the margin of a
// watchdog (2 s).
const pauses = 8 * time.Second

func TestShimFreezesChildAfterAPausedMachineResumes(t *testing.T) {
	kernel := os.Getenv("KERNEL")
	if kernel == "" {
		t.Skip("no KERNEL for a virtual machine: make pause")
	}
	dir := t.TempDir()
	machine, lines, say := boot(t, dir, kernel)
	defer func() { _ = machine.Process.Kill() }()
	var said strings.Builder
	for lines.Scan() {
		line := lines.Text()
		said.WriteString(line + "\n")
		if strings.Contains(line, "pause me") {
			order(t, dir, "stop")
			<-time.After(pauses)
			order(t, dir, "cont")
			_, err := fmt.Fprintln(say, time.Now().UnixNano())
			require.NoError(t, err)
		}
		if strings.Contains(line, "CLOCK_BOOTTIME went on") || strings.Contains(line, "clock set →") {
			t.Log(strings.TrimSpace(line))
		}
	}
	assert.Contains(t, said.String(), "exit code 0", "%s", said.String())
	assert.Contains(t, said.String(), "--- PASS: TestShimFreezesChildAfterAPausedMachineResumes")
}

// boot starts a virtual machine whose init process is the test binary of agent/shim.
func boot(t *testing.T, dir, kernel string) (*exec.Cmd, *bufio.Scanner, io.Writer) {
	t.Helper()
	program := filepath.Join(dir, "init")
	build := exec.Command("go", "test", "-c", "-o", program, "./agent/shim")
	build.Dir = "../.." // agent/shim is in another module
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	b, err := os.ReadFile(program)
	require.NoError(t, err)
	image := filepath.Join(dir, "initramfs")
	require.NoError(t, os.WriteFile(image, archive(b), 0o600))
	// Software emulation is slow, but works on every machine.
	machine := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256", "-net", "none",
		"-display", "none", "-no-reboot", "-serial", "stdio", "-monitor", "unix:"+filepath.Join(dir, "monitor")+",server,nowait",
		"-kernel", kernel, "-initrd", image,
		"-append", "console=ttyS0 quiet panic=-1 GATE_MACHINE=1 -- -test.v -test.run=^TestShimFreezesChildAfterAPausedMachineResumes$")
	say, err := machine.StdinPipe()
	require.NoError(t, err)
	hear, err := machine.StdoutPipe()
	require.NoError(t, err)
	machine.Stderr = os.Stderr
	require.NoError(t, machine.Start())
	return machine, bufio.NewScanner(hear), say
}

// order sends a command to the machine's monitor, and waits until the monitor has run
// it.
func order(t *testing.T, dir, what string) {
	t.Helper()
	monitor, err := net.Dial("unix", filepath.Join(dir, "monitor"))
	require.NoError(t, err)
	defer monitor.Close()
	r := bufio.NewReader(monitor)
	prompt := func() {
		for text := ""; !strings.HasSuffix(text, "(qemu) "); {
			c, err := r.ReadByte()
			require.NoError(t, err)
			text += string(c)
		}
	}
	prompt()
	_, err = fmt.Fprintln(monitor, what)
	require.NoError(t, err)
	prompt()
}

// archive returns an initramfs of the program, in cpio's "newc" format.
func archive(program []byte) []byte {
	const directory, file = 0o40755, 0o100755
	var out bytes.Buffer
	pad := func() {
		for out.Len()%4 != 0 {
			out.WriteByte(0)
		}
	}
	for i, e := range []struct {
		name string
		mode int
		data []byte
	}{{"proc", directory, nil}, {"dev", directory, nil}, {"tmp", directory, nil}, {"init", file, program}, {"TRAILER!!!", 0, nil}} {
		fmt.Fprintf(&out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
			i+1, e.mode, 0, 0, 1, 0, len(e.data), 0, 0, 0, 0, len(e.name)+1, 0)
		out.WriteString(e.name + "\x00")
		pad()
		out.Write(e.data)
		pad()
	}
	return out.Bytes()
}
