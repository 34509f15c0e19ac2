// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race

package quiet

import (
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pair returns two ends of a TCP connection over loopback. The second end is the usual one.
func pair(t testing.TB) (quiet, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	usual, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	other, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { usual.Close(); other.Close() })
	return Conn(usual), other
}

func TestReadReturnsEachByteAndTheEnd(t *testing.T) {
	c, other := pair(t)
	require.IsType(t, conn{}, c)
	text := strings.Repeat("abcdefg", 1<<17)
	go func() {
		_, _ = io.Copy(other, strings.NewReader(text))
		other.Close()
	}()
	got, err := io.ReadAll(c)
	assert.NoError(t, err)
	assert.Equal(t, text, string(got))
	n, err := c.Read(make([]byte, 1))
	assert.Zero(t, n)
	assert.Equal(t, io.EOF, err)
}

func TestReadFailsLikeTheUsualRead(t *testing.T) {
	for name, row := range map[string]struct {
		happens func(c, other net.Conn)
		want    error
	}{
		"deadline": {func(c, _ net.Conn) { _ = c.SetReadDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		"closed":   {func(c, _ net.Conn) { c.Close() }, net.ErrClosed},
		"reset": {func(_, other net.Conn) {
			_ = other.(*net.TCPConn).SetLinger(0)
			other.Close()
		}, syscall.ECONNRESET},
	} {
		for moment, before := range map[string]bool{"before the read": true, "during the read": false} {
			t.Run(name+" "+moment, func(t *testing.T) {
				c, other := pair(t)
				failed := make(chan error, 1)
				read := func() {
					_, err := c.Read(make([]byte, 1))
					failed <- err
				}
				if before {
					row.happens(c, other)
					read()
				} else {
					go read()
					<-time.After(10 * time.Millisecond)
					row.happens(c, other)
				}
				assert.ErrorIs(t, <-failed, row.want)
			})
		}
	}
}

func TestConnWithoutDescriptorStaysUnchanged(t *testing.T) {
	c, other := net.Pipe()
	defer other.Close()
	assert.Equal(t, c, Conn(c))
}
