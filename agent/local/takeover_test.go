// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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
			assert.True(t, answer.Close, "the program must not use the connection again")
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

func TestAnswerAfterTakeoverIsWhole(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter)
		sent   string
		status int
		ends   string
	}{
		"a problem": {func(w http.ResponseWriter) { stoppingProblem.write(w) }, "", http.StatusServiceUnavailable, ""},
		"no line":   {func(http.ResponseWriter) {}, "", http.StatusOK, ""},
		"the last line, although the program sends": {func(w http.ResponseWriter) {
			assert.NoError(t, newStream(w).line(strings.Repeat("x", 1<<20)))
			assert.NoError(t, newStream(w).line("last"))
		}, "GET / HTTP/1.1\r\n\r\n", http.StatusOK, "\"last\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			address := answering(t, func(_ context.Context, w http.ResponseWriter) { test.answer(w) })
			c := send(t, address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
			defer c.Close()
			answer, err := http.ReadResponse(bufio.NewReader(c), nil)
			require.NoError(t, err)
			defer answer.Body.Close()
			assert.Equal(t, test.status, answer.StatusCode)
			_, err = io.WriteString(c, test.sent)
			require.NoError(t, err)
			text, err := io.ReadAll(answer.Body)
			require.NoError(t, err, "the end is no failure")
			switch {
			case test.status != http.StatusOK:
				assert.Contains(t, string(text), `"reason":"Stopping"`)
			case test.ends == "":
				assert.Empty(t, text)
			default:
				assert.True(t, strings.HasSuffix(string(text), test.ends))
			}
		})
	}
}

func TestHeadRequestIsRefused(t *testing.T) {
	_, _, address := listening(t, newServer(t, "lock.a"))
	c := send(t, address, "HEAD /v1/lock/a?watch=true HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	defer c.Close()
	text, err := io.ReadAll(c)
	require.NoError(t, err)
	assert.Contains(t, string(text), "405 Method Not Allowed")
	assert.Contains(t, string(text), "Allow: GET")
}

// A program that sends bytes without end must not take the agent's processor time, which the
// heartbeats of other programs need.
func TestStreamEndsAfterManyBytesFromItsProgram(t *testing.T) {
	ended := make(chan struct{})
	address := answering(t, func(ctx context.Context, _ http.ResponseWriter) {
		<-ctx.Done()
		close(ended)
	})
	c := send(t, address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	defer c.Close()
	_, _ = c.Write(make([]byte, 4*mostSkipped)) // package http has read a part already
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		assert.Fail(t, "the stream goes on")
	}
}

// piped returns a response on a connection in memory, and the program's end of that connection.
func piped(t *testing.T) (to *taken, program net.Conn) {
	t.Helper()
	program, ours := net.Pipe()
	t.Cleanup(func() { program.Close() })
	return &taken{conn: ours, header: http.Header{}, chunked: true}, program
}

func TestNothingFollowsALineThatFailed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		to, program := piped(t)
		began, done := time.Now(), make(chan struct{})
		go func() {
			defer close(done)
			for lines := newStream(to); lines.line(map[string]any{"goodUntil": 86400.5}) == nil; { //nolint:revive // the loop ends when a line fails
			}
			assert.False(t, to.end())
			to.conn.Close()
		}()
		const cut = `"goodUntil":86400`
		var got []byte
		for one := make([]byte, 1); !strings.HasSuffix(string(got), cut); got = append(got, one[0]) {
			_, err := program.Read(one)
			require.NoError(t, err)
		}
		<-time.After(lineTimeout + lineTimeout/2) // the program is suspended
		rest, _ := io.ReadAll(program)
		<-done
		assert.Empty(t, string(rest), "the program must not take the cut number for the whole number")
		assert.Less(t, time.Since(began), 2*lineTimeout)
	})
}

func TestResponseToStalledProgramEndsInTime(t *testing.T) {
	for name, answer := range map[string]func(t *testing.T, to *taken){
		"a line has failed": func(t *testing.T, to *taken) { assert.Error(t, newStream(to).line("x")) },
		"nothing is sent":   func(*testing.T, *taken) {},
		"nothing is read":   func(_ *testing.T, to *taken) { reply(to, http.StatusCreated, holding{}) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				to, _ := piped(t)
				began := time.Now()
				answer(t, to)
				assert.False(t, to.end())
				assert.LessOrEqual(t, time.Since(began), lineTimeout)
			})
		})
	}
}

func TestDeadProgramsBidGetsNoHold(t *testing.T) {
	for name, call := range map[string]string{
		// Some programs send an empty line after a request.
		"one claim":      "/v1/lock/a/holds?wait=1h&heartbeat=5m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n\r\n",
		"several claims": "/v1/holds?claims=lock/a&wait=1h&heartbeat=5m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n\r\n",
		"a body":         "/v1/lock/a/holds?wait=1h HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
	} {
		t.Run(name, func(t *testing.T) {
			p, a, address := listening(t, newServer(t, "lock.a"))
			p.hold("?heartbeat=5m")
			bids := func() (n int) {
				_ = calls{a.keepers[0]}.call(t.Context(), func(time.Duration) { n = len(a.keepers[0].bids) })
				return n
			}
			c := send(t, address, "POST "+call)
			require.Eventually(t, func() bool { return bids() == 1 }, time.Minute, time.Millisecond)
			require.NoError(t, c.Close())
			require.Eventually(t, func() bool { return bids() == 0 }, time.Minute, time.Millisecond)
		})
	}
}

// lazy is a response whose connection is a pipe.
type lazy struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (l lazy) Hijack() (net.Conn, *bufio.ReadWriter, error) { return l.conn, nil, nil }

// Each connection counts toward the bound of all connections, so a lazy program must not keep one.
func TestConnectionEndsAlthoughProgramKeepsItOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		program, agent := net.Pipe()
		defer program.Close()
		require.NoError(t, program.SetWriteDeadline(time.Now().Add(3*closeTimeout)))
		takeOver(lazy{httptest.NewRecorder(), agent}, request(t.Context(), http.MethodGet, "/"), func(_ context.Context, w http.ResponseWriter) {
			_, _ = io.WriteString(w, "x")
		})
		go func() { _, _ = io.Copy(io.Discard, program) }()
		after(2 * closeTimeout)
		_, err := io.WriteString(program, "more")
		assert.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

// The program has closed the connection, and the agent notices this only by the failure of its write.
func TestHoldThatNoWriteTellsIsReleased(t *testing.T) {
	for name, answer := range map[string]func(ctx context.Context, k calls, w http.ResponseWriter){
		"heartbeats": func(ctx context.Context, k calls, w http.ResponseWriter) {
			answerBid(ctx, k, w, &bid{every: mostBeats}, time.Minute)
		},
		"stream": func(ctx context.Context, k calls, w http.ResponseWriter) {
			answerBid(ctx, k, w, &bid{stream: true}, time.Minute)
		},
		"several claims": func(ctx context.Context, k calls, w http.ResponseWriter) {
			several{members: []member{{calls: k}}, wait: time.Minute, every: mostBeats}.answer(ctx, w)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, "lock.a")
				_, a := beginWith(t, s, "first", "lock/a", func(*Config) {})
				to, program := piped(t)
				require.NoError(t, program.Close())
				answer(t.Context(), calls{a.keepers[0]}, to)
				after(time.Second)
				assert.Empty(t, holder(s))
			})
		})
	}
}

// The program may know its hold from the bytes that it has read.
func TestHoldOfACutAnswerIsNotReleased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		_, a := beginWith(t, s, "first", "lock/a", func(*Config) {})
		to, program := piped(t)
		go func() {
			_, _ = io.CopyN(io.Discard, program, 200)
			program.Close()
		}()
		answerBid(t.Context(), calls{a.keepers[0]}, to, &bid{every: mostBeats}, time.Minute)
		require.True(t, to.failed)
		after(time.Second)
		assert.Equal(t, "first", holder(s))
	})
}
