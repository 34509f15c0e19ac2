// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestSocketReplacesADirectoryInItsPlace(t *testing.T) {
	for name, in := range map[string]string{
		"at the path":           "socket",
		"at the temporary path": "socket.new",
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			path := filepath.Join(folder, "socket")
			require.NoError(t, os.MkdirAll(filepath.Join(folder, in, "deep"), 0o755))
			l, err := Socket("unix", path, 0o600)
			require.NoError(t, err)
			t.Cleanup(func() { l.Close() })
			c, err := net.Dial("unix", path)
			require.NoError(t, err)
			c.Close()
		})
	}
}

// unprivileged calls f without the rights of root, as the agent runs.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	require.NoError(t, unix.Setfsuid(65532))
	defer func() { assert.NoError(t, unix.Setfsuid(0)) }()
	f()
}

// A program of another user can make a folder that the agent may neither read nor empty.
func TestSocketReplacesADirectoryOfAnotherUser(t *testing.T) {
	for _, in := range []string{"socket", "socket.new"} {
		t.Run(in, func(t *testing.T) {
			// With relative paths, other users need no right to the folders above.
			t.Chdir(t.TempDir())
			require.NoError(t, os.Chmod(".", 0o777))
			require.NoError(t, os.MkdirAll(filepath.Join(in, "deep"), 0o755))
			require.NoError(t, os.Chmod(in, 0o500))
			for range 2 { // the agent can restart again
				unprivileged(t, func() {
					l, err := Socket("unix", "socket", 0o666)
					require.NoError(t, err)
					t.Cleanup(func() { l.Close() })
				})
				c, err := net.Dial("unix", "socket")
				require.NoError(t, err)
				c.Close()
			}
			aside, err := filepath.Glob("*.aside-*")
			require.NoError(t, err)
			assert.Len(t, aside, 1)
			for _, folder := range aside {
				require.NoError(t, os.Chmod(folder, 0o700)) // so that the test can remove the folder
			}
		})
	}
}

// A program that may write to the folder can put a link in the place of the fresh socket.
func TestModeOfSocketNeverChangesAnotherFile(t *testing.T) {
	folder := t.TempDir()
	private, link := filepath.Join(folder, "private"), filepath.Join(folder, "socket.new")
	require.NoError(t, os.WriteFile(private, nil, 0o600))
	require.NoError(t, os.Symlink(private, link))
	require.ErrorIs(t, permit(link, 0o666), errNotSocket)
	require.ErrorIs(t, permit(private, 0o666), errNotSocket)
	info, err := os.Stat(private)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	l, err := Socket("unix", filepath.Join(folder, "socket"), 0o666)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	info, err = os.Stat(filepath.Join(folder, "socket"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o666), info.Mode().Perm())
}

func TestMessagesKeepTheirBoundsAndFiles(t *testing.T) {
	a, b := sockets(t)
	require.NoError(t, send(a, []byte("first"), nil))
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer read.Close()
	require.NoError(t, send(a, []byte("with a file"), unix.UnixRights(int(write.Fd()))))
	write.Close()

	message, control := make([]byte, 100), make([]byte, unix.CmsgSpace(4))
	n, controls, flags, err := receive(b, message, control)
	require.NoError(t, err)
	assert.Equal(t, "first", string(message[:n]))
	assert.Zero(t, controls)
	assert.Zero(t, flags&^unix.MSG_CMSG_CLOEXEC)

	n, controls, _, err = receive(b, message, control)
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
		if err = send(a, make([]byte, 1000), nil); err != nil {
			break
		}
	}
	assert.ErrorIs(t, err, unix.EAGAIN)
	n, _, _, err := receive(b, make([]byte, 2000), nil)
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
		now := clock(uintptr(id))
		require.NoError(t, unix.ClockGettime(id, &after))
		assert.LessOrEqual(t, time.Duration(before.Nano()), now)
		assert.LessOrEqual(t, now, time.Duration(after.Nano()))
	}
	assert.Panics(t, func() { clock(1000) })
}
