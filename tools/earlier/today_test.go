// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

var update = flag.Bool("update", false, "rewrite golden files")

// acquired is the instant at which the holder of the golden Leases acquired the slot.
var acquired = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// held returns a record with every fact that a holder of this version writes.
func held() lease.Record {
	revision := api.Revision{Workload: "0b9e1c52-7d3f-4c1b-9a53-5c1f7e6a2d10", Number: 7, Hash: "5d4f"}
	return lease.Record{
		UID: "uid-100", Version: "208", Holder: "new_u", Duration: 45 * time.Second,
		AcquireTime: acquired, RenewTime: acquired.Add(time.Minute), Transitions: 4,
		Hold: "h1", Token: "207", BootID: "boot-1",
		Profile: lease.Profile{
			Address: "10.0.0.1", Workload: "Deployment/biller", Job: "job-1", Revision: revision,
			Serving: acquired.Add(time.Second), Leaving: "soon", Leave: "h1.1",
		},
		Paused: api.PauseHold, Yield: api.Yield{Hold: "h1", Successor: "next_u"},
		Rollout: api.Rollout{Hold: "h1", Yields: api.YieldsNow, Proven: revision}.String(),
	}
}

// released returns a record after a release that names a successor. The record also has done keys
// and failures.
func released() lease.Record {
	r := held()
	r.Holder, r.Hold, r.Token, r.BootID, r.Profile, r.Yield = "", "", "", "", lease.Profile{}, api.Yield{}
	r.Duration, r.Successor, r.Done, r.Failures = time.Second, "next_u", "6,7", "8 2"
	return r
}

// TestAgentsOfThisVersionWriteTheGoldenLeases compares the golden Leases with the Leases that agents
// of this version write. The tests in a copy of the earlier version read these golden Leases (go doc
// ./tools/earlier).
func TestAgentsOfThisVersionWriteTheGoldenLeases(t *testing.T) {
	archive := &txtar.Archive{Comment: []byte("Made by make golden. Do not edit.\n")}
	for _, one := range []struct {
		name string
		lease.Record
	}{{"held.json", held()}, {"released.json", released()}} {
		base := &kube.Lease{Name: "singleton.deployment.biller", Namespace: "shop", Labels: map[string]string{api.ManagedLabel: "true"}}
		base.Annotations = map[string]string{api.PausedAnnotation: string(one.Paused)}
		text, err := json.MarshalIndent(elector.LeaseOf(base, one.Record), "", "  ")
		require.NoError(t, err)
		archive.Files = append(archive.Files, txtar.File{Name: one.name, Data: append(text, '\n')})
	}
	path := filepath.Join("testdata", "today", "leases.txtar")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, txtar.Format(archive), 0o644))
	}
	golden, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(golden), string(txtar.Format(archive)))
}
