// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// answers returns the port of a server that gives this answer to every connection.
func answers(t *testing.T, answer []byte) int {
	t.Helper()
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "tcp", loopback+":0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 4096))
				_, _ = c.Write(answer)
			}()
		}
	}()
	return portOf(t, l.Addr().String())
}

// A probe can name another host. Without a bound, this host could end the agents of many pods, whose
// memory limit is 64 MiB.
func TestHugeHeaderOfProbedHostTakesLittleMemory(t *testing.T) {
	var answer bytes.Buffer
	answer.WriteString("HTTP/1.1 200 OK\r\n")
	for i := 0; answer.Len() < 9<<20; i++ {
		fmt.Fprintf(&answer, "A%x:\r\n", i)
	}
	answer.WriteString("\r\n")
	probe := api.Handler{HTTPGet: &api.HTTPGetAction{Port: answers(t, answer.Bytes())}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	result := Do(t.Context(), probe, loopback, long)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
	assert.Equal(t, Failure, result.Outcome, result.Output)
}
