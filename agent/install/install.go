// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package install puts the agent into the volume that the containers of a pod
// share. Done twice it is done once; a reader of the binary finds none or all
// of it.
package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/host"
)

var (
	// ErrFull: the volume has no room for the binary.
	ErrFull = errors.New("the shared volume is full")
	// ErrReadOnly: the volume is mounted read-only here.
	ErrReadOnly = errors.New("the shared volume is read-only")
)

// Dirs makes directories that everybody may write to: gated containers and the
// agent may each run as any user.
func Dirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := openDir(dir); err != nil {
			return explain(err)
		}
	}
	return nil
}

// Binary copies this very program to the path to, where everybody may execute it.
func Binary(to string) error { return explain(binary(to)) }

func binary(to string) error {
	// Not 0777: nobody but its owner replaces the binary.
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	if err := alone(filepath.Dir(to), func() error { return copySelf(to) }); err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	return nil
}

// openDir makes a directory that everybody may write to, whatever the umask.
// A setgid bit that a volume's fsGroup put there is kept.
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

// alone runs f while no other process does so for this directory.
func alone(dir string, f func() error) error {
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := host.Flock(int(lock.Fd())); err != nil {
		return &os.PathError{Op: "lock", Path: dir, Err: err}
	}
	return f()
}

// copySelf writes nothing if it is there already: an agent that is restarted needs
// no room on a disk that is full by now. It has one name for what is not whole yet:
// who is killed over it leaves one file behind, which the next one writes anew.
func copySelf(to string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	if same(self, to) {
		return nil
	}
	if _, err := self.Seek(0, io.SeekStart); err != nil {
		return err
	}
	fresh, err := os.OpenFile(to+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	defer os.Remove(fresh.Name()) // of no effect once it has its name
	_, err = io.Copy(fresh, self)
	if err == nil {
		err = fresh.Chmod(0o555)
	}
	if err = errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	return os.Rename(fresh.Name(), to)
}

// same tells whether the file at path has what is left of f. A file that cannot be
// read has not.
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
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}
