// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gobuild

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBuildsIgnoreGoSettingsThatChangeBinaries(t *testing.T) {
	home := t.TempDir()
	settings := filepath.Join(home, "env")
	require.NoError(t, os.WriteFile(settings, []byte("GOAMD64=v3\nGOFLAGS=-tags=other\nGOPROXY=https://goproxy.example\nGOFIPS140=latest\n"), 0o600))
	work := filepath.Join(home, "go.work")
	require.NoError(t, os.WriteFile(work, []byte("go 1.26.0\n"), 0o600))
	t.Setenv("GOENV", settings)
	t.Setenv("GOWORK", work)
	t.Setenv("GOEXPERIMENT", "arenas")
	t.Setenv("GOPROXY", "")
	environment, err := Environment(t.Context(), "GOOS=linux", "GOARCH=amd64")
	require.NoError(t, err)
	command := exec.CommandContext(t.Context(), "go", "env", "-json")
	command.Env = environment
	out, err := command.Output()
	require.NoError(t, err)
	var is map[string]string
	require.NoError(t, json.Unmarshal(out, &is))
	for name, want := range map[string]string{
		"GOAMD64": "v1", "GOFLAGS": "", "GOFIPS140": "off", "GOWORK": "off", "GOEXPERIMENT": "", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0",
		"GOPROXY": "https://goproxy.example",
	} {
		assert.Equal(t, want, is[name], name)
	}
}
