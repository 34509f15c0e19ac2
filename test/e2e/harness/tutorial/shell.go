// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
)

// Shell is a shell that runs the commands of a page.
type Shell struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

// Start starts a shell in a directory. The argument "environment" is the shell's whole
// environment. The shell ends with the context.
func Start(ctx context.Context, dir string, environment []string) (*Shell, error) {
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc")
	cmd.Dir, cmd.Env = dir, environment
	// A command of a page that waits for ever, such as kubectl get --watch, ends with the shell.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &Shell{process: cmd, in: in, out: bufio.NewReader(out)}, cmd.Start()
}

// end is the beginning of the line after the output of each command. The exit code follows in that
// line. No command of a page prints such a line.
const end = "-- end of the command with exit code "

// Run runs a command, and returns the lines of its output and its exit code. The argument "before"
// is the exit code of the previous command.
func (s *Shell) Run(command string, before int) (output []string, code int, err error) {
	// The subshell sets $? to the exit code of the previous command.
	script := fmt.Sprintf("(exit %d)\n{ %s\n} </dev/null 2>&1; printf '\n%s%%d\\n' $?\n", before, command, end)
	if _, err := io.WriteString(s.in, script); err != nil {
		return nil, 0, fmt.Errorf("write to the shell: %w", err)
	}
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			return output, 0, fmt.Errorf("read from the shell: %w", err)
		}
		if rest, ended := strings.CutPrefix(line, end); ended {
			_, err := fmt.Sscanf(rest, "%d", &code)
			return trim(output), code, err
		}
		output = append(output, strings.TrimRight(line, "\n"))
	}
}

// trim removes the empty lines at the end of an output.
func trim(output []string) []string {
	for len(output) > 0 && strings.TrimSpace(output[len(output)-1]) == "" {
		output = output[:len(output)-1]
	}
	if len(output) == 0 {
		return nil
	}
	return output
}

// Close ends the shell.
func (s *Shell) Close() error {
	return errors.Join(s.in.Close(), s.process.Wait())
}
