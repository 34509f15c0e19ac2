// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// takeOver takes the connection of a request from package http, and lets the function "answer"
// write the response. A connection that only follows a state then needs a fifth of the memory.
// takeOver does not wait for "answer". The context of "answer" ends when the program closes the
// connection. If "answer" gets the writer of package http instead, takeOver waits for "answer".
// So takeOver does for a HEAD request, whose response has no body, and for a writer without a
// connection, as in tests.
func takeOver(w http.ResponseWriter, r *http.Request, answer func(context.Context, http.ResponseWriter)) {
	if r.Method == http.MethodHead {
		answer(r.Context(), w)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		answer(r.Context(), w)
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	go func() {
		skip(conn)
		cancel()
	}()
	to := &taken{conn: conn, header: http.Header{}, chunked: r.ProtoAtLeast(1, 1)}
	go func() {
		answer(ctx, to)
		to.end()
		cancel()
	}()
}

// skip reads from the connection until its end. The bytes have no meaning, because a program sends
// no further request before the end of the response.
func skip(conn net.Conn) {
	bytes := make([]byte, 64)
	for {
		if _, err := conn.Read(bytes); err != nil {
			return
		}
	}
}

// taken is a response to one request, on a connection that no other code uses (RFC 9112). Each call
// of Write sends its bytes immediately. In HTTP/1.1 the response is chunked, so that the program can
// tell its end from a failure.
type taken struct {
	conn    net.Conn
	header  http.Header // nil once the header is sent
	chunked bool
}

func (t *taken) Header() http.Header { return t.header }

// WriteHeader sends the status and the header. All later calls have no effect.
func (t *taken) WriteHeader(status int) {
	if t.header == nil {
		return
	}
	t.header.Set("Connection", "close")
	t.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if t.chunked {
		t.header.Set("Transfer-Encoding", "chunked")
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = t.header.Write(&text) // a buffer fails no write
	text.WriteString("\r\n")
	t.header = nil
	_, _ = t.conn.Write(text.Bytes()) // after a failure, the next write fails, too
}

// Write sends the bytes, after the header if no call has sent the header yet.
func (t *taken) Write(b []byte) (int, error) {
	t.WriteHeader(http.StatusOK)
	if !t.chunked {
		return t.conn.Write(b)
	}
	if len(b) == 0 {
		return 0, nil // an empty chunk would end the response
	}
	if _, err := fmt.Fprintf(t.conn, "%x\r\n%s\r\n", len(b), b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetWriteDeadline bounds the time of later writes, for [http.ResponseController].
func (t *taken) SetWriteDeadline(by time.Time) error { return t.conn.SetWriteDeadline(by) }

// Flush does nothing, because Write keeps no bytes back.
func (t *taken) Flush() {}

// end sends the end of the response, and closes the connection.
func (t *taken) end() {
	t.WriteHeader(http.StatusOK)
	_ = t.conn.SetWriteDeadline(time.Now().Add(lineTimeout))
	if t.chunked {
		_, _ = io.WriteString(t.conn, "0\r\n\r\n") // if the write fails, the program is gone
	}
	t.conn.Close()
}
