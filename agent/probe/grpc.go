// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// These constants are the part of HTTP/2 (RFC 9113) that one small call needs. The HTTP/2 client
// of net/http would add a megabyte to the agent in every gated pod.
const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	frameData     = 0x0
	frameHeaders  = 0x1
	frameReset    = 0x3
	frameSettings = 0x4
	framePing     = 0x6
	frameGoAway   = 0x7

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8

	// maxFrame is the size of the largest frame that a server may send by default.
	maxFrame = 16 << 10
	// stream is the id of the only stream.
	stream = 1
)

// check calls grpc.health.v1.Health/Check.
func check(ctx context.Context, action *api.GRPCAction, address string, timeout time.Duration) Result {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	host := join("", address, action.Port)
	c, err := dialGRPC(ctx, action, host)
	if err != nil {
		return Result{Outcome: Failure, Output: fmt.Sprintf("timeout: failed to connect service %q within %v: %v", host, timeout, err), Refused: refused(err)}
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	status, err := call(c, action, host, userAgentOf(ctx), timeout)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Result{Outcome: Failure, Output: fmt.Sprintf("timeout: health rpc did not complete within %v", timeout)}
	case err != nil:
		return Result{Outcome: Failure, Output: fmt.Sprintf("error: health rpc probe failed: %v", err)}
	case status != serving:
		return Result{Outcome: Failure, Output: fmt.Sprintf("service unhealthy (responded with %q)", status)}
	}
	return Result{Outcome: Success, Output: "service healthy"}
}

func dialGRPC(ctx context.Context, action *api.GRPCAction, host string) (net.Conn, error) {
	if !action.TLS {
		return dialer.DialContext(ctx, "tcp", host)
	}
	config := insecure.Clone()
	config.NextProtos = []string{"h2"}
	d := tls.Dialer{NetDialer: &dialer, Config: config}
	return d.DialContext(ctx, "tcp", host)
}

// call sends the request, and reads until the answer is complete.
func call(c io.ReadWriter, action *api.GRPCAction, host, agent string, timeout time.Duration) (health, error) {
	var out bytes.Buffer
	out.WriteString(preface)
	writeFrame(&out, frameSettings, 0, 0, nil)
	writeFrame(&out, frameHeaders, flagEndHeaders, stream, requestHeaders(action, host, agent, timeout))
	writeFrame(&out, frameData, flagEndStream, stream, message(action.Service))
	if _, err := c.Write(out.Bytes()); err != nil {
		return 0, err
	}
	var answer []byte
	for {
		f, err := readFrame(c)
		if err != nil {
			return 0, err
		}
		switch f.kind {
		case frameSettings, framePing:
			if f.flags&flagAck == 0 {
				var reply bytes.Buffer
				writeFrame(&reply, f.kind, flagAck, 0, f.echo())
				_, err = c.Write(reply.Bytes())
			}
		case frameReset:
			err = errors.New("the server reset the call")
		case frameGoAway:
			err = f.away()
		case frameData:
			if f.stream != stream {
				return 0, errAnswer
			}
			answer = append(answer, f.content()...)
			if status, ok, bad := decode(answer); ok || bad != nil {
				return status, bad
			}
		}
		if err != nil {
			return 0, err
		}
		if f.stream == stream && f.flags&flagEndStream != 0 && (f.kind == frameData || f.kind == frameHeaders) {
			return 0, errors.New("the server answered without a message: it does not know the service, or no health service")
		}
	}
}

// requestHeaders encodes the headers as literals without Huffman coding and index
// (RFC 7541 6.2.2), which every server must understand.
func requestHeaders(action *api.GRPCAction, host, agent string, timeout time.Duration) []byte {
	scheme := "http"
	if action.TLS {
		scheme = "https"
	}
	var b []byte
	for _, field := range [][2]string{
		{":method", "POST"},
		{":scheme", scheme},
		{":path", "/grpc.health.v1.Health/Check"},
		{":authority", host},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
		{"user-agent", agent},
		{"grpc-timeout", strconv.FormatInt(timeout.Milliseconds(), 10) + "m"},
	} {
		b = append(b, 0)
		for _, s := range field {
			// Each string is shorter than 127 bytes, so its length fits into one byte.
			b = append(b, byte(len(s)))
			b = append(b, s...)
		}
	}
	return b
}

// message returns gRPC's prefix, followed by an encoded HealthCheckRequest.
func message(service string) []byte {
	var body []byte
	if service != "" {
		const field1 = 1<<3 | 2
		body = append(body, field1)
		body = binary.AppendUvarint(body, uint64(len(service)))
		body = append(body, service...)
	}
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body)))
	return append(b, body...)
}

// health is the status in a HealthCheckResponse.
type health uint64

const serving health = 1

func (h health) String() string {
	names := []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}
	if h < health(len(names)) {
		return names[h]
	}
	return strconv.FormatUint(uint64(h), 10)
}

var errAnswer = errors.New("the answer is no HealthCheckResponse")

// decode reads the status from the bytes that have arrived so far. The result "whole" is false
// while the message is incomplete.
func decode(b []byte) (status health, whole bool, err error) {
	const prefix = 5
	if len(b) < prefix {
		return 0, false, nil
	}
	size := binary.BigEndian.Uint32(b[1:prefix])
	if b[0] != 0 || size > maxFrame {
		return 0, false, errAnswer
	}
	b = b[prefix:]
	if uint32(len(b)) < size {
		return 0, false, nil
	}
	b = b[:size]
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false, errAnswer
		}
		b = b[n:]
		value, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false, errAnswer
		}
		b = b[n:]
		switch {
		case tag == 1<<3: // the field status
			status = health(value)
		case tag&7 == 0: // another field with a number
		case tag&7 == 2 && value <= uint64(len(b)): // another field with bytes
			b = b[value:]
		default:
			return 0, false, errAnswer
		}
	}
	return status, true, nil
}

type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

const frameHeader = 9

func writeFrame(out *bytes.Buffer, kind, flags byte, stream uint32, payload []byte) {
	n := len(payload)
	out.Write([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags})
	_ = binary.Write(out, binary.BigEndian, stream)
	out.Write(payload)
}

func readFrame(in io.Reader) (frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return frame{}, err
	}
	n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	if n > maxFrame {
		return frame{}, errors.New("the server does not speak HTTP/2")
	}
	f := frame{kind: h[3], flags: h[4], stream: binary.BigEndian.Uint32(h[5:]) &^ (1 << 31), payload: make([]byte, n)}
	_, err := io.ReadFull(in, f.payload)
	return f, err
}

// content returns the payload without its padding.
func (f frame) content() []byte {
	if f.flags&flagPadded == 0 || len(f.payload) == 0 {
		return f.payload
	}
	pad := int(f.payload[0])
	if pad >= len(f.payload) {
		return nil
	}
	return f.payload[1 : len(f.payload)-pad]
}

// echo returns the payload of the acknowledgement of this frame: the same payload for a ping,
// and none for settings.
func (f frame) echo() []byte {
	if f.kind == framePing {
		return f.payload
	}
	return nil
}

// away returns an error if the frame announces that the server ends the connection without
// answering this call.
func (f frame) away() error {
	if len(f.payload) < 4 || binary.BigEndian.Uint32(f.payload)&^(1<<31) < stream {
		return errors.New("the server is going away")
	}
	return nil
}
