// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// recorded returns a workload whose record has the given lines.
func recorded(t *testing.T, lines string) *Workload {
	t.Helper()
	w := &Workload{Space: &space.Space{T: t, Dir: t.TempDir()}, App: app.App{Name: "x"}}
	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, "x.jsonl"), []byte(lines), 0o600))
	return w
}

func TestLateTimeStampCountsAsNoStop(t *testing.T) {
	now, second := record.Now(), time.Second
	stopped := fmt.Sprintf(`{"event":"began","id":"a","at":%d,"meta":{"pid":1}}
{"event":"ends","id":"a","at":%d}
`, now-4*second, now-3*second)
	// The last time stamp of the process b is a second old.
	alive := fmt.Sprintf(`{"event":"began","id":"b","at":%d,"meta":{"pid":1}}
`, now-second)
	killed := fmt.Sprintf(`{"event":"began","id":"k","at":%d,"meta":{"pid":1}}
`, now-2*second)
	for name, test := range map[string]struct {
		lines string
		stops int
	}{
		"a living process":                  {alive, 0},
		"a stop, and a living process":      {stopped + alive, 1},
		"a process that is killed":          {killed + alive, 1},
		"a stop, and another after the end": {stopped + killed + alive, 2},
	} {
		t.Run(name, func(t *testing.T) {
			stops, _ := recorded(t, test.lines).Stops(now - 5*second)
			assert.Equal(t, test.stops, stops)
		})
	}
}
