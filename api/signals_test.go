// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestStopSignalIsParsedByNameOrNumber(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"SIGQUIT": syscall.SIGQUIT, "QUIT": syscall.SIGQUIT, "sigquit": syscall.SIGQUIT, "3": syscall.SIGQUIT, "03": syscall.SIGQUIT,
		"SIGHUP": syscall.SIGHUP, "SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL, "SIGSYS": 31, "SIGUSR2": 12, "SIGWINCH": 28,
		"SIGRTMIN+3": 37, "RTMIN+30": 64, "64": 64, "SIGRTMAX": 64, "SIGRTMAX-3": 61, "RTMAX-0": 64,
		"SIGIOT": syscall.SIGABRT, "SIGPOLL": 29, "SIGIO": 29,
	} {
		got, err := ParseStopSignal(text)
		assert.NoError(t, err, "%q", text)
		assert.Equal(t, want, got, "%q", text)
	}
}

func TestTextWithoutSignalIsNoStopSignal(t *testing.T) {
	for _, text := range []string{
		"", "SIG", "0", "-3", "+3", "65", "3 ", "SIGNONE", "256", "RTMIN+31", "RTMIN+-1", "RTMIN+", "RTMIN+x", "RTMIN+256",
		"RTMAX-31", "RTMAX--1", "RTMAX-", "RTMAX+1", "SIG3",
	} {
		_, err := ParseStopSignal(text)
		assert.ErrorIs(t, err, ErrNoSignal, "%q", text)
	}
}

func TestStopSignalThatShimCannotReceiveIsRefused(t *testing.T) {
	for _, text := range []string{
		"SIGCHLD", "CHLD", "CLD", "17", "017", "SIGURG", "23", "SIGPROF", "27", "32", "33", "SIGRTMIN", "RTMIN+0", "SIGRTMAX-30", "34",
	} {
		_, err := ParseStopSignal(text)
		assert.ErrorIs(t, err, ErrKeptSignal, "%q", text)
	}
}
