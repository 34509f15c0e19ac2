// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux && !386 && !s390x

package quiet

import (
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMessagesKeepTheirBoundsAndFiles(t *testing.T) {
	a, b := sockets(t)
	require.NoError(t, Send(a, []byte("first"), nil))
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer read.Close()
	require.NoError(t, Send(a, []byte("with a file"), unix.UnixRights(int(write.Fd()))))
	write.Close()

	message, control := make([]byte, 100), make([]byte, unix.CmsgSpace(4))
	n, controls, flags, err := Receive(b, message, control)
	require.NoError(t, err)
	assert.Equal(t, "first", string(message[:n]))
	assert.Zero(t, controls)
	assert.Zero(t, flags&^unix.MSG_CMSG_CLOEXEC)

	n, controls, _, err = Receive(b, message, control)
	require.NoError(t, err)
	assert.Equal(t, "with a file", string(message[:n]))
	messages, err := unix.ParseSocketControlMessage(control[:controls])
	require.NoError(t, err)
	require.Len(t, messages, 1)
	fds, err := unix.ParseUnixRights(&messages[0])
	require.NoError(t, err)
	file := os.NewFile(uintptr(fds[0]), "received")
	_, err = file.WriteString("x")
	assert.NoError(t, err)
	file.Close()
	got, err := io.ReadAll(read)
	assert.NoError(t, err)
	assert.Equal(t, "x", string(got))
}

func TestFullSocketRefusesMessageAtOnce(t *testing.T) {
	a, b := sockets(t)
	var err error
	for range 100_000 {
		if err = Send(a, make([]byte, 1000), nil); err != nil {
			break
		}
	}
	assert.ErrorIs(t, err, unix.EAGAIN)
	n, _, _, err := Receive(b, make([]byte, 2000), nil)
	assert.NoError(t, err)
	assert.Equal(t, 1000, n)
}

// sockets returns the two ends of a connection that carries whole messages.
func sockets(t *testing.T) (a, b syscall.RawConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	var ends [2]syscall.RawConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket")
		t.Cleanup(func() { file.Close() })
		ends[i], err = file.SyscallConn()
		require.NoError(t, err)
	}
	return ends[0], ends[1]
}

func TestClockAgreesWithTheUsualCall(t *testing.T) {
	for _, id := range []int32{unix.CLOCK_BOOTTIME, unix.CLOCK_REALTIME} {
		var before, after unix.Timespec
		require.NoError(t, unix.ClockGettime(id, &before))
		now := Clock(uintptr(id))
		require.NoError(t, unix.ClockGettime(id, &after))
		assert.LessOrEqual(t, time.Duration(before.Nano()), now)
		assert.LessOrEqual(t, now, time.Duration(after.Nano()))
	}
	assert.Panics(t, func() { Clock(1000) })
}
