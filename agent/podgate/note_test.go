// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// damagedNotes are the texts of notes that lack the shim, the hold or the boot.
var damagedNotes = []string{
	"", "{", `{"shim":"s"}`, `{"shim":"s","hold":"h"}`, `{"shim":"s","bootID":"b"}`, `{"hold":"h","bootID":"b"}`,
}

// The kubelet has not restarted the containers since the note was written.
func TestRebootEndsTheContainersDeadline(t *testing.T) {
	for name, test := range map[string]struct {
		ownKernel bool
		phase     gate.Phase
	}{"the node's": {false, gate.Waiting}, "its own": {true, gate.Running}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, (&note{Shim: "s", Hold: "h1", BootID: "yesterday", EndsAt: linux.Now() + time.Hour}).write(Dir(dir)))
			p, err := OpenPod(t.Context(), PodConfig{Dir: dir, OwnKernel: test.ownKernel})
			require.NoError(t, err)
			defer p.Close()
			assert.Equal(t, test.phase, p.report.Phase)
			assert.Zero(t, p.endsAt, "the instant in the note counts from another boot")
		})
	}
}

func TestAgentTurnCommandFailsIfNoteCannotMove(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.Error(t, MoveNote(Dir(file)), "otherwise the old note would count for the new containers")
}
