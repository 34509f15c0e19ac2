// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// fork starts a process that is hard to kill: an orphan that ignores SIGTERM, in a session of its
// own. The orphan inherits the application's flocks. So the flocks are free only when both the
// application and the orphan are dead.
func (l life) fork(c config) error {
	var parents []string
	var locks []*os.File
	for _, w := range l {
		parents = append(parents, w.ID)
		locks = append(locks, w.Lock)
	}
	// An intermediate process starts the orphan and then ends, so the orphan's parent is dead.
	return respawn(c, "fork:"+strings.Join(parents, ","), locks).Run()
}

func respawn(c config, descendant string, locks []*os.File) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", "-record", c.dir, "-alone", expand(c.names), "-descendant", descendant)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = locks
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// descend runs one of the application's two descendants: the process that starts the
// orphan, or the orphan itself.
func descend(c config) error {
	names := strings.Split(c.names, ",")
	var locks []*os.File
	for i := range names {
		locks = append(locks, os.NewFile(uintptr(3+i), "lock"))
	}
	if parents, ok := strings.CutPrefix(c.descendant, "fork:"); ok {
		return respawn(c, parents, locks).Start()
	}
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	for i, parent := range strings.Split(c.descendant, ",") {
		m := meta()
		m.Parent = parent
		if _, err := record.Inherit(c.dir, names[i], m, locks[i]); err != nil {
			return fmt.Errorf("record descendant: %w", err)
		}
	}
	select {}
}
