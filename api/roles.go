// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

// The roles of the agent's binary: the first word behind its name.
const (
	// RunRole is the sidecar, which holds the slots.
	RunRole = "run"
	// ExecRole is the shim, the parent of a gated container's application.
	ExecRole = "exec"
	// InstallRole copies the binary into the shared volume.
	InstallRole = "install"
	// ProbeRole is an exec probe of a gated container.
	ProbeRole = "probe"
	// HandleRole carries out one lifecycle hook for the shim.
	HandleRole = "handle"
	// TurnRole and WaitRole are the init containers of the gate "pod".
	TurnRole = "turn"
	WaitRole = "wait"
	// YieldRole asks a running agent to hand over.
	YieldRole = "yield"
)

// The exit codes of the binary that are not an application's own.
const (
	// ExitUsage ends a role whose arguments make no sense.
	ExitUsage = 2
	// ExitLost ends a container after a lost or yielded slot (EX_TEMPFAIL: try again). A
	// person can tell that end from the application's own. A shim may also end with this
	// code if its signals have not killed every descendant, because the end of PID 1
	// kills them.
	ExitLost = 75
	// RestartCode is the exit code by which the agent asks the kubelet to restart
	// all containers of a pod with the gate "pod". Nothing else that ends an agent
	// has it: not Go (2), not a signal (above 128), not a shell.
	RestartCode = 76
	// ExitBroken ends a shim that cannot work where it is (no /proc, no timer).
	ExitBroken = 125
	// ExitNotExecutable and ExitNotFound are the codes of shells and container
	// runtimes for a command that cannot be started.
	ExitNotExecutable = 126
	ExitNotFound      = 127
)
