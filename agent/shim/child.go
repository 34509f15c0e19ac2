// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

// child is the application's process, and the grant under which it runs.
type child struct {
	grant  gate.Grant
	pid    int // 0 if no child lives
	status unix.WaitStatus
	// began is the instant at which the child started. A thaw adds the duration of the freeze to
	// this instant, because a frozen child sets no signal handlers (see youngFor).
	began time.Duration
	// The field "killing" reports that the shim is killing all remaining processes.
	killing bool
	environ []string // the shim's own environment
	ours    func([]gate.SlotToken) []string
}

// env returns the variables of the grant, and then those variables of the shim's own
// environment that have other names. If a name came twice, a program could read the wrong value.
func (c *child) env() []string {
	if c.ours == nil {
		return c.environ
	}
	return override(c.environ, c.ours(c.grant.Slots))
}

// override returns the variables in the argument "ours", and then those variables in the argument
// "environ" that have other names.
func override(environ, ours []string) []string {
	env := ours
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if !has(ours, name) {
			env = append(env, v)
		}
	}
	return env
}

func has(env []string, name string) bool {
	for _, v := range env {
		if n, _, _ := strings.Cut(v, "="); n == name {
			return true
		}
	}
	return false
}

// startCode returns the exit code for a child that could not be started.
func startCode(err error) int {
	if errors.Is(err, fs.ErrNotExist) {
		return api.ExitNotFound
	}
	return api.ExitNotExecutable
}

// exitCode returns the child's own exit code, or 128+n if the child died of signal n.
func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
