// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"crypto/tls"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The shortest lease is 10 s, so the agent must notice a cut network path in less time.
func TestNetworkCutIsNoticedWithinShortestLeaseDuration(t *testing.T) {
	assert.LessOrEqual(t, probeIdle+probeCount*probeInterval, silence)
	assert.Less(t, silence, 10*time.Second)

	s := newServer(t, func(http.ResponseWriter, *http.Request) {})
	conn, err := s.client(t).transport.DialTLSContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "https://"))
	require.NoError(t, err)
	defer conn.Close()
	raw, err := conn.(*tls.Conn).NetConn().(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{
			tcpUserTimeout:        8000,
			syscall.TCP_KEEPIDLE:  5,
			syscall.TCP_KEEPINTVL: 1,
			syscall.TCP_KEEPCNT:   3,
		} {
			got, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option)
			assert.NoError(t, err)
			assert.Equal(t, want, got, "option %#x", option)
		}
	}))
}

func TestAPIClientIgnoresProxyEnvironmentVariables(t *testing.T) {
	assert.Nil(t, serve(t, http.StatusOK, "").transport.Proxy)
}
