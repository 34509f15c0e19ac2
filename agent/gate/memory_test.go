// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The agent's container has 64 MiB of memory. Every program of a gated container can connect as many
// false shims as the server accepts, and each of them can send the longest message.
func TestLongMessagesOfFalseShimsTakeLittleMemory(t *testing.T) {
	bootID, err := linux.BootID()
	require.NoError(t, err)
	for what, field := range map[string]string{
		"slots":   `"slots":[{}` + strings.Repeat(",{}", 16_000) + `]`,
		"trouble": fmt.Sprintf(`"trouble":{"serial":1,"reason":%q,"message":%q}`, ReasonPreStop, strings.Repeat("x", 48_000)),
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			s, end := served(t, Config{Dir: dir})
			const shims = 64
			before := heap()
			var refused atomic.Int32
			for i := range shims {
				c := greets(t, dir, fmt.Sprintf(`{"shim":"false-%d","container":"app","bootID":%q,"pid1":true,"phase":"waiting",%s}`, i, bootID, field))
				go func() {
					_, _ = c.Read(make([]byte, 1)) // until the server hangs up
					refused.Add(1)
				}()
			}
			require.Eventually(t, func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.register.peers)+int(refused.Load()) == shims
			}, patience, time.Millisecond)
			const ofConnection = 64 << 10
			assert.Less(t, max(heap(), before)-before, uint64(shims*(ofConnection+16<<10)))
			end()
		})
	}
}

// greets connects to the server, and sends the message. On a busy machine the server may hang up before the
// message (firstWithin), so greets connects again.
func greets(t *testing.T, dir, message string) net.Conn {
	t.Helper()
	for late := linux.Now() + patience; ; {
		c := dialled(t, dir)
		_, err := io.WriteString(c, message)
		if err == nil {
			return c
		}
		require.ErrorIs(t, err, unix.EPIPE)
		require.Less(t, linux.Now(), late)
	}
}
