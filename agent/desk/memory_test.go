// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
)

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The agent's container has 64 MiB of memory. Every program of a gated container can connect as many
// false shims as the desk accepts, and each of them can send the longest message.
func TestLongMessagesOfFalseShimsTakeLittleMemory(t *testing.T) {
	bootID, err := host.BootID()
	require.NoError(t, err)
	for what, field := range map[string]string{
		"slots":   `"slots":[{}` + strings.Repeat(",{}", 16_000) + `]`,
		"trouble": fmt.Sprintf(`"trouble":{"serial":1,"reason":%q,"message":%q}`, gate.ReasonPreStop, strings.Repeat("x", 48_000)),
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			s, end := served(t, Config{Dir: dir})
			const shims = 64
			before := heap()
			var refused atomic.Int32
			for i := range shims {
				c := dialled(t, dir)
				_, err := fmt.Fprintf(c, `{"shim":"false-%d","container":"app","bootID":%q,"pid1":true,"phase":"waiting",%s}`, i, bootID, field)
				require.NoError(t, err)
				go func() {
					_, _ = c.Read(make([]byte, 1)) // until the desk hangs up
					refused.Add(1)
				}()
			}
			require.Eventually(t, func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.register.peers)+int(refused.Load()) == shims
			}, 10*time.Second, time.Millisecond)
			const ofConnection = 64 << 10
			assert.Less(t, max(heap(), before)-before, uint64(shims*(ofConnection+16<<10)))
			end()
		})
	}
}
