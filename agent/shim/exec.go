// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"os"

	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/api"
)

// Exec runs the command under each grant, and returns the exit code of the container. The
// caller must immediately end the process with that code. The end of PID 1 kills the processes
// that the shim could not kill.
func Exec(cfg Config) (code int) {
	if cfg.Stderr == nil {
		cfg.Stderr = os.Stderr
	}
	cfg.Environ = os.Environ()
	k := newKernel(cfg.Stderr)
	defer k.finishWriting()
	said := link{machine: k}
	path, err := linux.LookPath(cfg.Command[0], os.Getenv("PATH"))
	if err != nil {
		// If the command does not exist, the pod needs no slot, so the shim ends before it
		// waits for a grant.
		said.say("%v", err)
		return startCode(err)
	}
	cfg.Path = path
	id, err := k.open(cfg)
	if err != nil {
		said.say("%v", err)
		return api.ExitBroken
	}
	return Run(cfg, id, k)
}

// Run runs the command on any machine, as Exec does on the kernel. When Run ends, the machine
// must kill all its processes.
func Run(cfg Config, id Identity, m Machine) (code int) {
	s := newShim(cfg, id, m)
	for do := s.wait; do != nil; {
		do, code = do()
	}
	return code
}
