// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gated

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestAgentParsesStopSignalByNameOrNumber(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"SIGQUIT": syscall.SIGQUIT, "QUIT": syscall.SIGQUIT, "sigquit": syscall.SIGQUIT, "3": syscall.SIGQUIT,
		"SIGRTMIN+3": 37, "RTMIN+0": 34, "RTMIN+30": 64, "64": 64,
		"SIGRTMIN": 34, "SIGRTMAX": 64, "SIGRTMAX-3": 61, "RTMAX-30": 34,
		"SIGCLD": syscall.SIGCHLD, "SIGIOT": syscall.SIGABRT, "SIGPOLL": syscall.SIGIO,
		"": 0, "0": 0, "-3": 0, "+3": 0, "65": 0, "3 ": 0, "SIGNONE": 0, "256": 0,
		"RTMIN+31": 0, "RTMIN+-1": 0, "RTMIN+": 0, "RTMIN+x": 0, "RTMIN+256": 0,
		"RTMAX-31": 0, "RTMAX--1": 0, "RTMAX-": 0, "RTMAX+1": 0,
	} {
		got, err := parseSignal(text)
		assert.Equal(t, want, got, "%q", text)
		assert.Equal(t, want == 0, err != nil, "%q", text)
	}
}

func TestStopSignalThatShimCannotReceiveIsRefused(t *testing.T) {
	names := []string{"SIGCHLD", "CLD", "17", "SIGURG", "SIGPROF", "27", "32", "33", "SIGRTMIN", "RTMIN+0", "34"}
	for _, name := range append(names, api.KeptSignals...) {
		_, err := stopSignal(name)
		assert.ErrorContains(t, err, "cannot be passed on", name)
	}
	sig, err := stopSignal("SIGRTMIN+3")
	assert.NoError(t, err)
	assert.EqualValues(t, 37, sig)
}
