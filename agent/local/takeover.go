// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// takeOver takes the connection of a request from package http, and lets the function "answer"
// write the response. A connection that only waits then needs no buffers of package http. Unlike package
// http, takeOver notices the close of a connection even if bytes have come after the request.
// takeOver does not wait for "answer". The context of "answer" ends when the program closes the
// connection. If the writer has no connection, as in tests, "answer" gets that writer, and takeOver
// waits for "answer".
func takeOver(w http.ResponseWriter, r *http.Request, answer func(context.Context, http.ResponseWriter)) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		answer(r.Context(), w)
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		skip(conn)
		cancel()
	}()
	to := &taken{conn: conn, header: http.Header{}, chunked: r.ProtoAtLeast(1, 1)}
	go func() {
		answer(ctx, to)
		if to.end() {
			// If the kernel has unread bytes at the close, the kernel resets the connection, and
			// the program loses the end of the response.
			_ = conn.SetReadDeadline(time.Now().Add(closeTimeout))
			<-closed
		}
		conn.Close()
		cancel()
	}()
}

const (
	// mostSkipped bounds the bytes that a program may send during a response. Some programs send an
	// empty line after a request. Each read costs the agent time, so more bytes end the response.
	mostSkipped = 4096
	// closeTimeout is the time that a program has to close the connection after the response.
	closeTimeout = time.Second
)

// skip reads from the connection until its end, but at most [mostSkipped] bytes. The bytes have no
// meaning, because a program sends no further request before the end of the response.
func skip(conn net.Conn) {
	bytes := make([]byte, 64)
	for left := mostSkipped; left > 0; {
		n, err := conn.Read(bytes)
		if err != nil {
			return
		}
		left -= n
	}
}

// taken is a response to one request, on a connection that no other code uses (RFC 9112). Each call
// of Write sends its bytes immediately. In HTTP/1.1 the response is chunked, so that the program can
// tell its end from a failure.
type taken struct {
	conn    net.Conn
	header  http.Header // nil once the header is sent
	chunked bool
	// The field "failed" reports that a write has failed. A part of the bytes may have been sent, so
	// no further byte may follow.
	failed bool
	// The field "began" reports that the connection has taken a byte of the body.
	began bool
}

// isUntold reports whether a write has failed before the connection took any byte of the body. The
// program then learns nothing from the response.
func isUntold(w http.ResponseWriter) bool {
	t, ok := w.(*taken)
	return ok && t.failed && !t.began
}

// Header returns the header, which has no further use once it is sent.
func (t *taken) Header() http.Header {
	if t.header == nil {
		return http.Header{}
	}
	return t.header
}

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
	_, _ = t.send(text.Bytes()) // the next write returns the error
}

// Write sends the bytes, after the header if no call has sent the header yet.
func (t *taken) Write(b []byte) (int, error) {
	t.WriteHeader(http.StatusOK)
	if len(b) == 0 {
		return 0, nil // an empty chunk would end the response
	}
	text := b
	if t.chunked {
		text = fmt.Appendf(nil, "%x\r\n%s\r\n", len(b), b)
	}
	n, err := t.send(text)
	t.began = t.began || n > 0
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// send sends the bytes, unless an earlier call has failed, and returns how many bytes were sent. The
// buffer of the kernel can be full of earlier answers that the program does not read, so each write has
// a deadline.
func (t *taken) send(b []byte) (n int, err error) {
	if t.failed {
		return 0, net.ErrClosed
	}
	_ = t.conn.SetWriteDeadline(time.Now().Add(lineTimeout)) // a connection supports deadlines
	n, err = t.conn.Write(b)
	t.failed = err != nil
	return n, err
}

// Flush does nothing, because Write keeps no bytes back.
func (t *taken) Flush() {}

// end sends the end of the response. The result is false if the program did not get the whole
// response.
func (t *taken) end() bool {
	if t.failed {
		return false
	}
	t.WriteHeader(http.StatusOK)
	if t.chunked {
		_, _ = t.send([]byte("0\r\n\r\n"))
	}
	if half, ok := t.conn.(interface{ CloseWrite() error }); ok && !t.failed {
		_ = half.CloseWrite() // if the program is gone, nobody needs the end
	}
	return !t.failed
}
