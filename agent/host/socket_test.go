// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
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
