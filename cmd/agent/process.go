// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// saveMemory saves memory rather than time, because the process runs beside an application, and
// mostly waits. Garbage is collected early, and one thread runs Go code.
func saveMemory() {
	debug.SetGCPercent(20)
	runtime.GOMAXPROCS(1)
}

// toldToStop returns a channel that is closed at the first SIGTERM or SIGINT. The kubelet sends
// SIGTERM to a sidecar after the application's containers have ended, or when the pod's grace is
// over. A second signal has no further effect.
func toldToStop() <-chan struct{} {
	stop := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		close(stop)
	}()
	return stop
}

// untilStopped returns a context that also ends when the channel is closed.
func untilStopped(ctx context.Context, stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// firstProcess reports whether no earlier agent process of the pod has called firstProcess. Each
// process tries to create the file "begun" in a directory that lives as long as the pod.
// The file is not synced to the disk: a crash of the kernel can remove the file, but also ends all
// children of earlier processes. If the file can neither be found nor made, firstProcess returns an
// error. A process must not go on after that error, because the next process would count as the
// first.
func firstProcess(dir string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, "begun"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	switch {
	case errors.Is(err, os.ErrExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("note the first process of the agent (is the node's disk full?): %w", err)
	}
	return true, f.Close()
}

// noteBoot adds the boot id to the notes in a directory that lives as long as the pod. The result has
// all boot ids of these notes. If the note cannot be written, or a crash of the kernel
// removes it, a later boot only waits until the Lease expires. So noteBoot returns no error.
func noteBoot(dir, boot string, log *slog.Logger) []string {
	name := filepath.Join(dir, "boots")
	text, err := readRegular(name)
	boots := strings.Fields(text)
	if slices.Contains(boots, boot) {
		return boots
	}
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = appendLine(name, boot)
	}
	if err != nil {
		log.Warn("the boot is not noted: after a reboot the pod waits until its lease expires", "err", err)
	}
	return append(boots, boot)
}

// mostNoted bounds the bytes of a note. A boot id has 36 bytes, so the note has room for a thousand
// boots.
const mostNoted = 64 << 10

// careful makes os.OpenFile follow no link, and wait for no process at the other end of a pipe. In a
// pod with the socket of the local API, programs may write to the volume.
const careful = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

var errNotRegular = errors.New("not a regular file")

// readRegular returns the first bytes of a regular file, at most mostNoted.
func readRegular(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|careful, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", &os.PathError{Op: "read", Path: name, Err: errNotRegular}
	}
	text, err := io.ReadAll(io.LimitReader(f, mostNoted))
	return string(text), err
}

// appendLine appends a line to the file. The text begins with a line break, because a crash may have
// left a part of the last line.
func appendLine(name, line string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY|careful, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + line + "\n")
	return errors.Join(err, f.Close())
}

// newRandom returns a source of randomness with a random seed.
func newRandom() rand.Source {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // this read never fails
	return rand.NewChaCha8(seed)
}

// courseNote is the directory that contains the note with the course of a pod that may skip.
type courseNote string

func (n courseNote) path() string { return filepath.Join(string(n), "course") }

// read returns the course in the note; empty without a note. If the note is unreadable, the
// application may have started, so the result is CourseRun.
func (n courseNote) read() agent.Course {
	b, err := os.ReadFile(n.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case agent.Course(b) == agent.CourseSkip:
		return agent.CourseSkip
	}
	return agent.CourseRun
}

// write replaces the note in one step, and waits until the note is on the disk. Unlike a grant,
// the course must outlive a crash of the node.
func (n courseNote) write(c agent.Course) error {
	fresh := n.path() + linux.Unfinished
	err := writeThrough(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, []byte(c))
	if err == nil {
		err = os.Rename(fresh, n.path())
	}
	if err == nil {
		// The new name of the note is on the disk only after a sync of the directory.
		err = writeThrough(string(n), os.O_RDONLY, nil)
	}
	if err != nil {
		return fmt.Errorf("note the course %q: %w", c, err)
	}
	return nil
}

// writeThrough opens the file or directory, writes the text if there is one, and waits until
// all data is on the disk.
func writeThrough(path string, flags int, text []byte) error {
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if len(text) > 0 {
		if _, err := f.Write(text); err != nil {
			return err
		}
	}
	return f.Sync()
}
