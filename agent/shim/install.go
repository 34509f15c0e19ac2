// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

var (
	// errFull means that the volume has no room for the program.
	errFull = errors.New("the shared volume is full")
	// errReadOnly means that the volume is mounted read-only in this container.
	errReadOnly = errors.New("the shared volume is read-only")
)

// OpenDirs makes directories that all users may write to, because gated containers
// and the agent may each run as any user.
func OpenDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := openDir(dir); err != nil {
			return explain(err)
		}
	}
	return nil
}

// Install copies the program in the file "from" to the given path, in the volume that the containers of a
// pod share, where all users may execute it. A repeated installation changes nothing. At the path, each
// process finds the whole program or no file.
//
// Rejected: an init container that installs the shim's program, which costs each pod a second
// because the kubelet polls for its end; a startup probe on the sidecar, behind which crashed
// containers never start again after a restart of the kubelet (kubernetes#137146); an image volume
// (KEP-4639), which nodes with an older runtime lack.
func Install(from, to string) error { return explain(place(from, to)) }

func place(from, to string) error {
	// The directory's mode is not 0777, because only the program's owner may replace the
	// program.
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("install program: %w", err)
	}
	if err := alone(from, func() error { return copyOver(from, to) }); err != nil {
		return fmt.Errorf("install program: %w", err)
	}
	return nil
}

// openDir makes a directory that all users may write to, and ignores the umask. A
// setgid bit stays, because the kubelet sets it for a volume's fsGroup.
func openDir(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if info.Mode().Perm() == 0o777 {
		return nil
	}
	if err := os.Chmod(dir, 0o777|info.Mode()&os.ModeSetgid); err != nil {
		return fmt.Errorf("open directory to all users: %w", err)
	}
	return nil
}

// The function "alone" runs f while this process holds the flock on the file "from". Meanwhile, no
// other process of the container copies this file. The file is in the image of the agent's
// container, and a gated program cannot open that file. Each file in the shared volume could be open
// in a gated program, and a flock by this program would block the agent for ever.
func alone(from string, f func() error) error {
	lock, err := os.Open(from)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := linux.Flock(int(lock.Fd())); err != nil {
		return &os.PathError{Op: "lock", Path: from, Err: err}
	}
	return f()
}

// copyOver copies the program to the path. If the program is already there, copyOver writes nothing,
// because a restarted agent may find the disk full. Otherwise copyOver first writes to a temporary
// file, which always has the same name. If the process is killed, only that file stays, and the next
// process overwrites it.
func copyOver(from, to string) error {
	program, err := os.Open(from)
	if err != nil {
		return err
	}
	defer program.Close()
	if same(program, to) {
		return nil
	}
	if _, err := program.Seek(0, io.SeekStart); err != nil {
		return err
	}
	fresh, err := os.OpenFile(to+linux.Unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	defer os.Remove(fresh.Name()) // after the rename, Remove finds no such file
	_, err = io.Copy(fresh, program)
	if err == nil {
		err = fresh.Chmod(0o555)
	}
	if err = errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	return os.Rename(fresh.Name(), to)
}

// same reports whether the file at path has the same bytes as the unread rest of f. An unreadable
// file is not equal.
func same(f *os.File, path string) bool {
	there, err := os.Open(path)
	if err != nil {
		return false
	}
	defer there.Close()
	a, b := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, atEnd := io.ReadFull(f, a)
		m, alsoAtEnd := io.ReadFull(there, b)
		if !bytes.Equal(a[:n], b[:m]) {
			return false
		}
		if atEnd != nil {
			return errors.Is(alsoAtEnd, atEnd)
		}
	}
}

func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", errFull, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %w", errReadOnly, err)
	}
	return err
}
