// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent"
)

func TestContactIsThePortThatOtherPodsReach(t *testing.T) {
	for _, c := range []struct{ ip, listen, want string }{
		{"10.0.0.1", ":15090", "10.0.0.1:15090"},
		{"fd00::1", ":15090", "[fd00::1]:15090"},
		{"10.0.0.1", "", "invalid AddrPort"},
		{"10.0.0.1", "127.0.0.1:15090", "invalid AddrPort"},
		{"10.0.0.1", ":http", "invalid AddrPort"},
		{"", ":15090", "invalid AddrPort"},
	} {
		assert.Equal(t, c.want, contactOf(agent.Config{Pod: agent.Pod{PodIP: c.ip}}, c.listen).String(), c)
	}
}

func serveSupport(t *testing.T, h http.Handler) netip.AddrPort {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	return netip.MustParseAddrPort(at.Host)
}

func TestAskGetsTheAnswerOfAnotherAgent(t *testing.T) {
	contact := serveSupport(t, answerer(func(_ context.Context, message string) (string, error) {
		if message != "ask" {
			return "", errors.New("no holder of mine")
		}
		return "promise", nil
	}))
	answer, err := askPod(t.Context(), contact, "ask")
	require.NoError(t, err)
	assert.Equal(t, "promise", answer)
	_, err = askPod(t.Context(), contact, "another ask")
	require.ErrorContains(t, err, "409")
	_, err = askPod(t.Context(), contact, strings.Repeat("a", longestMessage+1))
	require.ErrorContains(t, err, "413")
}

// A pod that is no agent may answer, if another pod has got the address.
func TestAskTakesLittleFromAStranger(t *testing.T) {
	elsewhere := 0
	other := serveSupport(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	contact := serveSupport(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+other.String()+"/secret", http.StatusTemporaryRedirect)
	}))
	_, err := askPod(t.Context(), contact, "ask")
	require.ErrorContains(t, err, "307")
	assert.Zero(t, elsewhere)

	contact = serveSupport(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<20))
	}))
	answer, err := askPod(t.Context(), contact, "ask")
	require.NoError(t, err)
	assert.Len(t, answer, longestMessage)
}

// babbles accepts one connection, and sends the first text and then the other again and again, until the client hangs
// up.
func babbles(t *testing.T, first, again string) netip.AddrPort {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hungUp := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-hungUp
	})
	go func() {
		defer close(hungUp)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, err = io.WriteString(c, first)
		more := []byte(again) // io.WriteString would allocate a copy each time
		for err == nil && again != "" {
			_, err = c.Write(more)
		}
		_, _ = io.Copy(io.Discard, c)
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// Whatever answers at the address of a standby, the ask ends in time, and takes little memory.
func TestAskEndsInTimeWhateverAnswers(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct{ first, again string }{
		"nothing":           {"", ""},
		"no header":         {head, ""},
		"an endless status": {"HTTP/1.1 200 ", strings.Repeat("O", 1<<10)},
		"an endless header": {head + "A: ", strings.Repeat("a", 1<<10)},
		"endless headers":   {head, "A: a\r\n"},
		"endless hints":     {"", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"},
		"half a body":       {head + "Content-Length: 500\r\n\r\na", ""},
		"a compressed body": {head + "Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\xff\xff"},
		"an endless chunk":  {head + "Transfer-Encoding: chunked\r\n\r\n1;", strings.Repeat("a", 1<<10)},
		"endless trailers":  {head + "Trailer: A\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: a\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			contact := babbles(t, c.first, c.again)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			answer, _ := askPod(ctx, contact, "ask")
			assert.Less(t, time.Since(began), 10*time.Second)
			runtime.ReadMemStats(&after)
			assert.LessOrEqual(t, len(answer), longestMessage)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
		})
	}
}
