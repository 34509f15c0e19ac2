// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import "errors"

// Unsent reports whether the gate has refused a grant before it sent any part of the grant.
func Unsent(err error) bool {
	for _, refusal := range []error{ErrUnknown, ErrNotConnected, ErrOver, ErrUnproven, ErrNotNoted} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// These are the errors of orders to a shim. After ErrNotRun or ErrNotConnected, the command in
// the order may have run all the same. After any other of these errors, the order has had no
// effect.
var (
	// ErrUnknown means that no shim has the id of the order, or that the shim is dead.
	ErrUnknown = errors.New("unknown shim")
	// ErrNotConnected means that the shim cannot be reached now. An order to drain never causes
	// this error, because the server keeps that order for the shim's next connection.
	ErrNotConnected = errors.New("shim is not connected")
	// ErrOver means that the shim has drained under the hold of the order, or that its
	// container ends. The shim starts no further child under this hold.
	ErrOver = errors.New("the hold is over for this shim")
	// ErrUnproven means that an earlier shim of the container had a grant of the same
	// hold, and that nothing proves the earlier shim dead.
	ErrUnproven = errors.New("an earlier shim of the container is not known to be dead")
	// ErrNotNoted means that the grant was not sent. Usually the server cannot write the
	// grant's note, because the disk is full or read-only. The gate "pod" also returns
	// ErrNotNoted if no container may start now.
	ErrNotNoted = errors.New("no note of the grant can be written, or no container may start now")
	// ErrNotRunning means that no command can run, because the shim has no child,
	// or a child that is ending or frozen.
	ErrNotRunning = errors.New("the application does not run")
	// ErrNotRun means that the command could not be started, or that its exit code
	// is unknown.
	ErrNotRun = errors.New("the command was not run")
	// ErrMessage means that no server would send such an order, or that no shim would send such a
	// message.
	ErrMessage = errors.New("malformed message")
)
