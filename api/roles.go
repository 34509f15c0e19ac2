// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

// These constants are the roles of the processes of agent and shim. The first argument of a process
// names its role. The shim's program has the roles exec, probe and handle. The agent's program has all
// roles but exec and probe.
const (
	// RunRole is the sidecar, which holds the slots.
	RunRole = "run"
	// ExecRole is the shim, the parent of a gated container's application.
	ExecRole = "exec"
	// InstallRole copies the program of the shims into the shared volume.
	InstallRole = "install"
	// ProbeRole is an exec probe of a gated container.
	ProbeRole = "probe"
	// HandleRole carries out one lifecycle hook for the shim.
	HandleRole = "handle"
	// TurnRole and WaitRole are the init containers of the gate "pod".
	TurnRole = "turn"
	WaitRole = "wait"
	// AfterRole is the init container that waits for the conditions of its pod.
	AfterRole = "after"
	// BarrierRole is the init container that arrives at the barrier of its pod, and waits there.
	BarrierRole = "barrier"
	// LocalRole is the sidecar of a pod whose program uses the local API.
	LocalRole = "api"
	// ReadyRole ends once the local API of its pod accepts connections.
	ReadyRole = "ready"
	// YieldRole asks a running agent to yield.
	YieldRole = "yield"
)

// These constants are the exit codes of agent and shim that are not an application's own.
const (
	// ExitUsage ends a role whose arguments are invalid.
	ExitUsage = 2
	// ExitWaited ends a shim, or the wait at a barrier, that has waited for as long as
	// [WaitAtMostAnnotation] permits (EX_UNAVAILABLE). The application did not start during
	// that wait.
	ExitWaited = 69
	// ExitLost is the exit code of a shim after a lost or yielded slot (EX_TEMPFAIL: try
	// again). The code distinguishes that end from the end of the application. If a
	// shim's signals cannot kill every descendant after a drain, the code is the same. Then the
	// kernel kills the other descendants, because the shim is PID 1.
	ExitLost = 75
	// RestartCode is the exit code by which the agent asks the kubelet to restart
	// all containers of a pod with the gate "pod". No other end of an agent has this
	// code: a panic of Go has 2, and a signal has a code above 128.
	RestartCode = 76
	// ExitBroken ends a shim that cannot work in its container (no /proc, no timer).
	ExitBroken = 125
	// ExitNotExecutable and ExitNotFound are the codes of shells and container
	// runtimes for a command that cannot be started.
	ExitNotExecutable = 126
	ExitNotFound      = 127
)
