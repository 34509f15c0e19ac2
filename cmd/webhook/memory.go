// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
)

const (
	// limitVariable names the environment variable with the container's memory limit, in bytes.
	limitVariable = "MEMORY_LIMIT"
	// memoryShare is a part of the limit, in percent. If the program uses more memory than this
	// part, the garbage collector works harder. The rest of the limit is for memory that the
	// collector does not count. Such memory is the program itself (35 MB), the stacks of threads,
	// and the kernel's buffers.
	memoryShare = 80
)

var errNoBytes = errors.New("not a number of bytes")

// limitMemory makes the garbage collector keep to the container's limit, and returns the
// collector's limit. Without a container's limit, or with GOMEMLIMIT, limitMemory changes
// nothing.
func limitMemory(getenv func(string) string) (int64, error) {
	text := getenv(limitVariable)
	if text == "" || getenv("GOMEMLIMIT") != "" {
		return 0, nil
	}
	container, err := strconv.ParseInt(text, 10, 64)
	if err != nil || container <= 0 {
		return 0, fmt.Errorf("%s is %q: %w", limitVariable, text, errNoBytes)
	}
	limit := container / 100 * memoryShare
	debug.SetMemoryLimit(limit)
	return limit, nil
}
