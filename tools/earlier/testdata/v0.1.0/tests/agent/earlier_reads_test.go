// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// TestEarlierAgentsReadTodaysLeases lets an agent of v0.1.0 read the Leases that agents of today
// write. A held Lease is free only after its duration, a released Lease at once. A write of the
// agent of v0.1.0 keeps the annotations that v0.1.0 does not know.
func TestEarlierAgentsReadTodaysLeases(t *testing.T) {
	archive, err := txtar.ParseFile(filepath.Join(os.Getenv("TODAY"), "leases.txtar"))
	require.NoError(t, err)
	require.NotEmpty(t, archive.Files)
	for _, file := range archive.Files {
		l := new(kube.Lease)
		require.NoError(t, json.Unmarshal(file.Data, l), file.Name)
		r := recordOf(l)
		var view lease.Observer
		view.Read(time.Hour, r)
		free, known := view.FreeAt(0)
		require.True(t, known, file.Name)
		if strings.HasPrefix(file.Name, "held") {
			assert.Equal(t, time.Hour+45*time.Second, free, file.Name)
			assert.NotEmpty(t, r.Hold, file.Name)
			assert.NotEmpty(t, r.Token, file.Name)
			assert.NotEmpty(t, r.Notes.Address, file.Name)
		} else {
			assert.Equal(t, time.Hour, free, file.Name)
		}
		budget, err := api.NewBudget(30 * time.Second)
		require.NoError(t, err)
		self := lease.Self{Identity: "old_u", BootID: "boot-2", Budget: budget}
		next, err := self.Acquire(r, "h9", lease.Notes{Address: "10.0.0.9"}, time.Now())
		require.NoError(t, err)
		written := leaseOf(l, next)
		known9 := map[string]bool{}
		for _, key := range []string{api.HoldAnnotation, api.TokenAnnotation, api.BootAnnotation, api.AddressAnnotation, api.WorkloadAnnotation, api.ServingAnnotation} {
			known9[key] = true
		}
		for key, value := range l.Annotations {
			if !known9[key] {
				assert.Equal(t, value, written.Annotations[key], "%s %s", file.Name, key)
			}
		}
		text, err := json.MarshalIndent(written, "", "  ")
		require.NoError(t, err)
		if os.Getenv("EARLIER") != "" && strings.HasPrefix(file.Name, "held") {
			text = stable(t, text)
			require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("EARLIER"), "lease-over-"+file.Name), append(text, '\n'), 0o644))
		}
	}
}

// stable replaces the times of the write.
func stable(t *testing.T, text []byte) []byte {
	t.Helper()
	var whole map[string]any
	require.NoError(t, json.Unmarshal(text, &whole))
	spec := whole["spec"].(map[string]any)
	spec["acquireTime"], spec["renewTime"] = "2026-01-02T04:00:00.000000Z", "2026-01-02T04:00:00.000000Z"
	text, err := json.MarshalIndent(whole, "", "  ")
	require.NoError(t, err)
	return text
}
