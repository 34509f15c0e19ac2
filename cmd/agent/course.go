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
)

// courseNote is the directory of the note about the course of a pod that may skip.
type courseNote string

func (n courseNote) path() string { return filepath.Join(string(n), "course") }

// read returns the noted course; empty without a note. A note that cannot be read may mean
// that the application has started, so the pod does not skip.
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

// write replaces the note atomically. A crash of the machine may leave an empty note, which
// counts as the course "run".
func (n courseNote) write(c agent.Course) error {
	fresh := n.path() + ".new"
	err := os.WriteFile(fresh, []byte(c), 0o644)
	if err == nil {
		err = os.Rename(fresh, n.path())
	}
	if err != nil {
		return fmt.Errorf("note the course %q: %w", c, err)
	}
	return nil
}
