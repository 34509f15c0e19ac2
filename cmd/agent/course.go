// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/host"
)

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
	fresh := n.path() + host.Unfinished
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
