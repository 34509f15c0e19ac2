// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"strconv"
	"time"
)

// ExecArgs are the arguments of the shim. The child's own command follows the arguments. Code that
// composes arguments starts from [DefaultExecArgs].
type ExecArgs struct {
	// Container is the name of the container in which the shim runs.
	Container string
	OnLoss    OnLoss
	// OnBusy with the value [OnBusySkip] permits the shim to end with exit code 0 before its
	// child has started. WaitAtMost above zero permits the shim to end with [ExitWaited].
	OnBusy     OnBusy
	WaitAtMost time.Duration
	// MayBeDone permits the shim to end with exit code 0 if the container's work is done already.
	MayBeDone bool
	// Unbounded permits the child to run without a deadline, because the pod holds no slot
	// while its application runs.
	Unbounded bool
	// Shards is the number of shards of the pod's work; zero for a pod without shards.
	Shards int
	// StopSignal is the name or number of the signal that asks the child to stop. If
	// StopSignal is empty, the image's stop signal applies, or SIGTERM if the image has
	// none.
	StopSignal string
	// Platforms has the image's command for each architecture, if the commands differ.
	Platforms Platforms
	// PostStart and PreStop are the container's hooks; nil for none.
	PostStart, PreStop *Handler
	// Grace is the time within which the child and its PreStop must end. The webhook writes
	// the pod's own grace period only if the container has a hook.
	Grace time.Duration

	// Socket is the path of the agent's socket. Only tests change the path.
	Socket string
}

// DefaultExecArgs returns the arguments with the default value of each.
func DefaultExecArgs() ExecArgs {
	return ExecArgs{OnLoss: OnLossStandby, Grace: DefaultGrace, Socket: Socket}
}

// IsShim reports whether a container's command starts the shim: the first two words are the
// shim's program and the role. The policies compare the same two words.
func IsShim(command []string) bool {
	return len(command) > 1 && command[0] == ShimProgram && command[1] == ExecRole
}

// Args returns the words of a container's command that follow the path of the program. The last
// word, "--", separates the shim's arguments from the child's command.
func (e ExecArgs) Args() []string {
	return append(append([]string{ExecRole}, execArguments.words(e)...), endOfArgs)
}

// endOfArgs ends the arguments of a role.
const endOfArgs = "--"

// ParseExecArgs reads the words that follow the role, as the kubelet has expanded
// them, and returns the child's command.
func ParseExecArgs(words []string) (e ExecArgs, child []string, err error) {
	e = DefaultExecArgs()
	child, err = execArguments.parse(ExecRole, &e, words)
	return e, child, err
}

// RecallExecArgs reads the words of [ExecArgs.Args] back from a container's command, and
// ignores all other words.
func RecallExecArgs(words []string) ExecArgs {
	e := DefaultExecArgs()
	execArguments.recall(&e, words)
	return e
}

var execArguments = arguments[ExecArgs]{
	textArg("container", "name of this container",
		func(e *ExecArgs) *string { return &e.Container }),
	textArg("on-loss", "after a lost slot: standby, restart or end",
		func(e *ExecArgs) *OnLoss { return &e.OnLoss }, OnLossStandby, OnLossRestart, OnLossEnd),
	textArg("on-busy", "what the container does while another pod holds the slot: wait or skip",
		func(e *ExecArgs) *OnBusy { return &e.OnBusy }, OnBusyWait, OnBusySkip).
		written(func(e ExecArgs) bool { return e.OnBusy == OnBusySkip }),
	durationArg("wait-at-most", "how long the container waits for the slot; 0: without a bound",
		func(e *ExecArgs) *time.Duration { return &e.WaitAtMost }).
		written(func(e ExecArgs) bool { return e.WaitAtMost != 0 }),
	optionArg("once", "the container ends with exit code 0 if its work is done already",
		func(e *ExecArgs) *bool { return &e.MayBeDone }),
	optionArg("unbounded", "the application may run without a deadline, because the pod holds no slot for life",
		func(e *ExecArgs) *bool { return &e.Unbounded }),
	{
		name: "shards", meaning: "how many shards the work of the pod has",
		where: func(e ExecArgs) bool { return e.Shards != 0 },
		text:  func(e ExecArgs) string { return strconv.Itoa(e.Shards) },
		read: func(e *ExecArgs, value string) error {
			claims, problem := parseShards(value)
			if problem != "" {
				return errors.New(problem)
			}
			e.Shards = claims[0].Size
			return nil
		},
	},
	textArg("stop-signal", "the signal that asks the child to stop, by name or number; SIGTERM by default",
		func(e *ExecArgs) *string { return &e.StopSignal }).written(func(e ExecArgs) bool { return e.StopSignal != "" }),
	{
		name: "platforms", meaning: "the image's command for each architecture, as JSON, before COMMAND",
		where: func(e ExecArgs) bool { return len(e.Platforms) > 0 },
		text:  func(e ExecArgs) string { return e.Platforms.String() },
		read: func(e *ExecArgs, value string) error {
			platforms, err := parsePlatforms(value)
			if err == nil {
				e.Platforms = platforms
			}
			return err
		},
	},
	hookArg("post-start", "the handler that runs when the application has started, as JSON",
		func(e *ExecArgs) **Handler { return &e.PostStart }),
	hookArg("pre-stop", "the handler that runs before the application is asked to stop, as JSON",
		func(e *ExecArgs) **Handler { return &e.PreStop }),
	durationArg("grace", "the grace of the application and its preStop hook",
		func(e *ExecArgs) *time.Duration { return &e.Grace }).
		written(func(e ExecArgs) bool { return e.PostStart != nil || e.PreStop != nil || e.Grace != DefaultGrace }),
	textArg("socket", "the agent's socket",
		func(e *ExecArgs) *string { return &e.Socket }).written(func(e ExecArgs) bool { return e.Socket != Socket }),
}

// hookArg returns the row of a hook for the table execArguments.
func hookArg(name, meaning string, field func(*ExecArgs) **Handler) argument[ExecArgs] {
	return argument[ExecArgs]{
		name: name, meaning: meaning,
		where: func(e ExecArgs) bool { return *field(&e) != nil },
		text:  func(e ExecArgs) string { return (*field(&e)).String() },
		read: func(e *ExecArgs, value string) error {
			hook, err := parseHandler(value)
			if err == nil {
				*field(e) = &hook
			}
			return err
		},
	}
}
