// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"strings"
	"time"
)

// Outcome is the outcome of a probe.
type Outcome int

const (
	// Unknown means that the probe could not be carried out. Such an outcome does not count.
	Unknown Outcome = iota
	Success
	Failure
)

// Result is the result of a probe.
type Result struct {
	Outcome Outcome
	// Output is the text that the kubelet would report for this result.
	Output string
	// Status is the HTTP status of the application's answer; zero without an answer. Location is
	// the Location header of that answer; empty for none.
	Status   int
	Location string
	// Refused reports that the application's port refused the connection, because no process
	// listens at that port.
	Refused bool
}

// Exited returns the result of an exec probe whose command has exited.
func Exited(code int, output string) Result {
	if code != 0 {
		return Result{Outcome: Failure, Output: output}
	}
	return Result{Outcome: Success, Output: output}
}

// TimedOut returns the result of an exec probe whose command was killed at the timeout.
func TimedOut(command []string, timeout time.Duration) Result {
	return Result{Outcome: Failure, Output: fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(command, " "), timeout)}
}
