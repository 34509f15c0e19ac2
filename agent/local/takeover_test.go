// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// answering serves each request with a response that takes the connection, and returns the
// server's address.
func answering(t *testing.T, answer func(context.Context, http.ResponseWriter)) string {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { takeOver(w, r, answer) }))
	t.Cleanup(web.Close)
	return strings.TrimPrefix(web.URL, "http://")
}

func TestProgramReadsEachLineAtOnce(t *testing.T) {
	for version, chunked := range map[string]bool{"HTTP/1.1": true, "HTTP/1.0": false} {
		t.Run(version, func(t *testing.T) {
			next := make(chan struct{})
			address := answering(t, func(ctx context.Context, w http.ResponseWriter) {
				lines := newStream(w)
				for i := range 3 {
					assert.NoError(t, lines.line(i))
					select {
					case <-next:
					case <-ctx.Done():
					}
				}
			})
			c := send(t, address, "GET / "+version+"\r\nHost: localhost\r\n\r\n")
			defer c.Close()
			answer, err := http.ReadResponse(bufio.NewReader(c), nil)
			require.NoError(t, err)
			defer answer.Body.Close()
			assert.Equal(t, 200, answer.StatusCode)
			assert.Equal(t, "application/x-ndjson", answer.Header.Get("Content-Type"))
			assert.NotEmpty(t, answer.Header.Get("Date"))
			assert.Equal(t, chunked, len(answer.TransferEncoding) == 1)
			body := bufio.NewReader(answer.Body)
			for _, want := range []string{"0\n", "1\n", "2\n"} {
				line, err := body.ReadString('\n')
				require.NoError(t, err)
				assert.Equal(t, want, line, "the server still waits")
				next <- struct{}{}
			}
			_, err = body.ReadByte()
			assert.ErrorIs(t, err, io.EOF, "the end is no failure")
		})
	}
}

func TestClosedConnectionEndsAnswer(t *testing.T) {
	ended := make(chan struct{})
	address := answering(t, func(ctx context.Context, _ http.ResponseWriter) {
		<-ctx.Done()
		close(ended)
	})
	c := send(t, address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	select {
	case <-ended:
		t.Error("the program's next request has ended the answer")
	default:
	}
	require.NoError(t, c.Close())
	<-ended
}

func TestProblemAfterTakeoverHasItsStatus(t *testing.T) {
	address := answering(t, func(_ context.Context, w http.ResponseWriter) { stoppingProblem.write(w) })
	c := send(t, address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	defer c.Close()
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer answer.Body.Close()
	assert.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"reason":"Stopping"`)
}

func TestHeadOfStreamHasNoBody(t *testing.T) {
	address := answering(t, func(_ context.Context, w http.ResponseWriter) { assert.NoError(t, newStream(w).line("unseen")) })
	c := send(t, address, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	defer c.Close()
	text, err := io.ReadAll(c)
	require.NoError(t, err)
	assert.Contains(t, string(text), "application/x-ndjson")
	assert.NotContains(t, string(text), "unseen")
}
