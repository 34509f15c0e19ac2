// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// from opens a connection to the server. The connection comes from the address of the peer.
func from(t *testing.T, peer, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(peer)}, Timeout: 10 * time.Second}
	connection, err := dialer.DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { connection.Close() })
	return connection
}

// calling sends one call over a TLS connection, which stays open.
func calling(t *testing.T, connection *tls.Conn) error {
	t.Helper()
	require.NoError(t, connection.SetDeadline(time.Now().Add(10*time.Second)))
	if _, err := io.WriteString(connection, "POST /pods HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); err != nil {
		return err
	}
	_, err := connection.Read(make([]byte, 1<<10))
	return err
}

// secured adds TLS to a connection, with or without a client certificate.
func secured(connection net.Conn, certificates ...tls.Certificate) *tls.Conn {
	return tls.Client(connection, &tls.Config{InsecureSkipVerify: true, Certificates: certificates})
}

func TestConnectionFloodDoesNotBlockOtherCallers(t *testing.T) {
	ca := newAuthority(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(file, ca.pem(), 0o600))
	for name, c := range map[string]struct {
		clientCA  string
		strangers []string
		begin     func(*testing.T, net.Conn)
	}{
		"a stranger that only connects":              {"", []string{"127.0.0.2"}, func(*testing.T, net.Conn) {}},
		"a stranger that only connects, a client CA": {file, []string{"127.0.0.2"}, func(*testing.T, net.Conn) {}},
		"strangers that only connect, a client CA":   {file, []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"}, func(*testing.T, net.Conn) {}},
		"a stranger that has called, no CA":          {"", []string{"127.0.0.2"}, func(t *testing.T, c net.Conn) { require.NoError(t, calling(t, secured(c))) }},
		"a stranger with half a header, no CA":       {"", []string{"127.0.0.2"}, func(_ *testing.T, c net.Conn) { _, _ = io.WriteString(secured(c), "POST /pods HT") }},
		"strangers that have called, no CA":          {"", []string{"127.0.0.2", "127.0.0.3"}, func(t *testing.T, c net.Conn) { require.NoError(t, calling(t, secured(c))) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newCallServer(settings{clientCA: c.clientCA})
			s.maxConnections = 20
			address := listening(t, s)
			caller := secured(from(t, "127.0.0.1", address), ca.client(t))
			require.NoError(t, calling(t, caller))
			for i := range 3 * s.maxConnections {
				c.begin(t, from(t, c.strangers[i%len(c.strangers)], address))
			}
			require.NoError(t, calling(t, caller), "the connection that was there")
			require.NoError(t, answered(t, address, ca.client(t)), "another one")
		})
	}
}

func TestNewConnectionAboveLimitClosesAnIdleConnection(t *testing.T) {
	s := newCallServer(settings{})
	s.maxConnections = 2
	address := listening(t, s)
	served, idle := secured(from(t, "127.0.0.1", address)), secured(from(t, "127.0.0.1", address))
	_, err := io.WriteString(served, "POST /pods HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, served.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = served.Read(make([]byte, 1<<10))
	require.NoError(t, err, "the call has begun")
	require.NoError(t, calling(t, idle))
	require.Eventually(t, func() bool { return answered(t, address) == nil }, time.Minute, time.Millisecond, "the newest gets in")
	require.Error(t, calling(t, idle), "the idle one goes for it")
	_, err = io.WriteString(served, "{}")
	require.NoError(t, err)
	_, err = served.Read(make([]byte, 1<<10))
	assert.NoError(t, err, "a call that has begun is answered")
}
