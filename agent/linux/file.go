// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Unfinished is the suffix of a file, or of a socket, that has not replaced the earlier one yet.
const Unfinished = ".new"

// Replace replaces a file in one step: a reader finds the old text or the new text. Replace does not
// wait until the text is on the disk. If the kernel crashes before that, the text may be lost.
func Replace(path string, text []byte, mode os.FileMode) error {
	if err := os.WriteFile(path+Unfinished, text, mode); err != nil {
		return err
	}
	return os.Rename(path+Unfinished, path)
}

// IgnoreClosed returns nil if the error says that a file or a connection is closed already.
// Otherwise the result is the error.
func IgnoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Lock waits until no other process holds the flock on the file, and takes the flock. From then
// on this process is the only agent that acts for its pod. The flock ends with the process.
func Lock(ctx context.Context, path string, log *slog.Logger) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the pod: %w", err)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return f, nil
	}
	log.Info("waiting for another agent process of this pod to end")
	locked := make(chan error, 1)
	go func() { locked <- Flock(int(f.Fd())) }()
	select {
	case err = <-locked:
	case <-ctx.Done():
		// The wait in the kernel cannot be cancelled. If that wait ends after all, the
		// goroutine gives up the flock at once.
		go func() { _, _ = <-locked, f.Close() }()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the pod: %w", err)
	}
	return f, nil
}

// Flock waits for an exclusive flock on an open file, even if signals interrupt the
// wait.
func Flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
