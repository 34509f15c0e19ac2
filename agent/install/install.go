// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package install puts the agent into the volume that the containers of a pod
// share. Done twice it is done once; a reader of the binary finds none or all
// of it.
package install

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var (
	// ErrFull: the volume has no room for the binary.
	ErrFull = errors.New("the shared volume is full")
	// ErrReadOnly: the volume is mounted read-only here.
	ErrReadOnly = errors.New("the shared volume is read-only")
)

// Install copies this very program to the path to, and makes the directories.
// Everybody may execute the one and write to the others: gated containers and
// the agent may each run as any user.
func Install(to string, dirs ...string) error {
	return explain(install(to, dirs))
}

func install(to string, dirs []string) error {
	for _, dir := range dirs {
		if err := openDir(dir); err != nil {
			return err
		}
	}
	// Not 0777: nobody but its owner replaces the binary.
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	if err := copySelf(to); err != nil {
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

func copySelf(to string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	fresh, err := os.CreateTemp(filepath.Dir(to), ".agent-")
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

func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}
