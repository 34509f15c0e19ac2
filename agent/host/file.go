// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"net"
	"os"
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
