// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// loopback is the pod's address in these tests.
const loopback = "127.0.0.1"

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}

// The function "deaf" returns the port of a server that accepts connections but never answers.
func deaf(t *testing.T) int {
	t.Helper()
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "tcp", loopback+":0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return portOf(t, l.Addr().String())
}

// The function "closed" returns a port without a listener.
func closed(t *testing.T) int {
	t.Helper()
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "tcp", loopback+":0")
	require.NoError(t, err)
	port := portOf(t, l.Addr().String())
	l.Close()
	return port
}

func application(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ok", func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, userAgent, r.UserAgent())
		assert.Equal(t, "*/*", r.Header.Get("Accept"))
		_, _ = w.Write(bytes.Repeat([]byte("x"), 2*maxBody))
	})
	mux.HandleFunc("GET /asked", func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "shop.example", r.Host)
		assert.Equal(t, "me", r.UserAgent())
		assert.NotContains(t, r.Header, "Accept")
		assert.Equal(t, []string{"1", "2"}, r.Header["X-Two"])
		assert.Equal(t, "a=b", r.URL.RawQuery)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /sick", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	mux.HandleFunc("GET /away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
	})
	mux.HandleFunc("GET /round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/sick", http.StatusFound) })
	mux.HandleFunc("GET /hangs", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // the client gets no answer
	})
	return mux
}

// These are the timeouts of probes: short for a deaf server, and long for all other
// servers, because the machine may be busy.
const (
	short = 300 * time.Millisecond
	long  = 10 * time.Second
)

func allowed(silence bool) time.Duration {
	if silence {
		return short
	}
	return long
}

// docs/reference/compatibility.md: probes/headers probes/host probes/https carried
func TestHTTPProbeResultEqualsTheKubeletsResult(t *testing.T) {
	plain, secure := httptest.NewServer(application(t)), httptest.NewTLSServer(application(t))
	defer plain.Close()
	defer secure.Close()
	asked := []api.HTTPHeader{
		{Name: "Host", Value: "shop.example"}, {Name: "user-agent", Value: "me"}, {Name: "Accept"},
		{Name: "X-Two", Value: "1"}, {Name: "x-two", Value: "2"},
	}
	for _, tt := range []struct {
		name string
		get  api.HTTPGetAction
		want Result
	}{
		{"success", api.HTTPGetAction{Path: "/ok"}, Result{Outcome: Success, Status: 200}},
		{"headers", api.HTTPGetAction{Path: "/asked?a=b", HTTPHeaders: asked}, Result{Outcome: Success, Status: 204}},
		{"failure", api.HTTPGetAction{Path: "/sick"}, Result{Outcome: Failure, Status: 418, Output: "HTTP probe failed with statuscode: 418"}},
		{"redirect", api.HTTPGetAction{Path: "/moved"}, Result{Outcome: Failure, Status: 418, Output: "HTTP probe failed with statuscode: 418"}},
		{"redirect to another host", api.HTTPGetAction{Path: "/away"}, Result{Outcome: Success, Status: 302, Location: "http://elsewhere.example/"}},
		{"endless redirects", api.HTTPGetAction{Path: "/round"}, Result{Outcome: Failure, Output: "stopped after 10 redirects"}},
		{"silence", api.HTTPGetAction{Path: "/hangs"}, Result{Outcome: Failure, Output: "/hangs\": context deadline exceeded"}},
		{"own host", api.HTTPGetAction{Path: "/ok", Host: "localhost"}, Result{Outcome: Success, Status: 200}},
	} {
		for scheme, url := range map[string]string{"HTTP": plain.URL, "HTTPS": secure.URL} {
			t.Run(tt.name+" "+scheme, func(t *testing.T) {
				action := tt.get
				action.Scheme = scheme
				action.Port = portOf(t, strings.SplitN(url, "//", 2)[1])
				got := Do(t.Context(), api.Handler{HTTPGet: &action}, loopback, allowed(tt.name == "silence"))
				assert.Contains(t, got.Output, tt.want.Output)
				got.Output, tt.want.Output = "", ""
				assert.Equal(t, tt.want, got)
			})
		}
	}
	t.Run("refused", func(t *testing.T) {
		got := Do(t.Context(), api.Handler{HTTPGet: &api.HTTPGetAction{Port: closed(t)}}, loopback, long)
		assert.Equal(t, Failure, got.Outcome)
		assert.Contains(t, got.Output, "connection refused")
		assert.Zero(t, got.Status)
	})
}

func TestProbeOfClosedPortReportsARefusedConnection(t *testing.T) {
	moved := httptest.NewServer(http.RedirectHandler("http://"+net.JoinHostPort(loopback, strconv.Itoa(closed(t)))+"/", http.StatusFound))
	defer moved.Close()
	for name, tt := range map[string]struct {
		handler api.Handler
		refused bool
	}{
		"HTTP":                          {api.Handler{HTTPGet: &api.HTTPGetAction{Path: "/ok?a=b", Port: closed(t)}}, true},
		"HTTPS":                         {api.Handler{HTTPGet: &api.HTTPGetAction{Path: "/ok", Port: closed(t), Scheme: "HTTPS"}}, true},
		"TCP":                           {api.Handler{TCPSocket: &api.TCPSocketAction{Port: closed(t)}}, true},
		"gRPC":                          {api.Handler{GRPC: &api.GRPCAction{Port: closed(t)}}, true},
		"no answer":                     {api.Handler{HTTPGet: &api.HTTPGetAction{Port: deaf(t)}}, false},
		"no answer to a gRPC call":      {api.Handler{GRPC: &api.GRPCAction{Port: deaf(t)}}, false},
		"a redirect to the closed port": {api.Handler{HTTPGet: &api.HTTPGetAction{Port: portOf(t, moved.Listener.Addr().String())}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := Do(t.Context(), tt.handler, loopback, allowed(strings.HasPrefix(name, "no answer")))
			assert.Equal(t, Failure, got.Outcome)
			assert.Equal(t, tt.refused, got.Refused, got.Output)
		})
	}
}

// docs/reference/compatibility.md: probes/readiness-tcp carried
func TestTCPProbePassesIfTheConnectionOpens(t *testing.T) {
	open := Do(t.Context(), api.Handler{TCPSocket: &api.TCPSocketAction{Port: deaf(t)}}, loopback, long)
	assert.Equal(t, Result{Outcome: Success}, open)
	shut := Do(t.Context(), api.Handler{TCPSocket: &api.TCPSocketAction{Port: closed(t)}}, "elsewhere.invalid", long)
	assert.Equal(t, Failure, shut.Outcome)
	named := Do(t.Context(), api.Handler{TCPSocket: &api.TCPSocketAction{Port: deaf(t), Host: loopback}}, "elsewhere.invalid", long)
	assert.Equal(t, Success, named.Outcome)
}

// healthServer runs a gRPC server on net/http, and returns the server's port. For a known service,
// the server answers with the given status. For an unknown service, the server answers only with
// trailers.
func healthServer(t *testing.T, secure bool, status byte) int {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, 2, r.ProtoMajor)
		assert.Equal(t, "/grpc.health.v1.Health/Check", r.URL.Path)
		assert.Equal(t, http.MethodPost, r.Method)
		assert.Equal(t, "trailers", r.Header.Get("Te"))
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		w.Header().Set("Content-Type", "application/grpc")
		service := string(body[5:])
		assert.Equal(t, uint32(len(service)), binary.BigEndian.Uint32(body[1:]))
		switch service {
		case "", "\x0a\x02db":
		case "\x0a\x04hang":
			<-r.Context().Done()
			return
		default:
			w.Header().Set("Grpc-Status", "5")
			return
		}
		w.Header().Set("Trailer", "Grpc-Status")
		// The answer is split into two frames.
		answer := []byte{0, 0, 0, 0, 2, 1 << 3, status}
		_, _ = w.Write(answer[:6])
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(answer[6:])
		w.Header().Set("Grpc-Status", "0")
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.Protocols.SetHTTP2(true)
	if secure {
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return portOf(t, server.Listener.Addr().String())
}

// docs/reference/compatibility.md: probes/liveness-grpc probes/startup-grpc probes/readiness-grpc carried
func TestGRPCProbePassesOnlyForAHealthyService(t *testing.T) {
	for _, tt := range []struct {
		name    string
		tls     bool
		status  byte
		service string
		want    Result
	}{
		{"healthy", false, 1, "", Result{Outcome: Success, Output: "service healthy"}},
		{"healthy by name", false, 1, "db", Result{Outcome: Success, Output: "service healthy"}},
		{"healthy by TLS", true, 1, "", Result{Outcome: Success, Output: "service healthy"}},
		{"unhealthy", false, 2, "", Result{Outcome: Failure, Output: `service unhealthy (responded with "NOT_SERVING")`}},
		{"unknown", false, 1, "other", Result{Outcome: Failure, Output: "error: health rpc probe failed: the server answered without a message: it does not know the service, or no health service"}},
		{"silent", false, 1, "hang", Result{Outcome: Failure, Output: "timeout: health rpc did not complete within 300ms"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			action := &api.GRPCAction{Port: healthServer(t, tt.tls, tt.status), Service: tt.service, TLS: tt.tls}
			assert.Equal(t, tt.want, Do(t.Context(), api.Handler{GRPC: action}, loopback, allowed(tt.name == "silent")))
		})
	}
}

func TestGRPCProbeFailsWithoutAGRPCServer(t *testing.T) {
	http1 := httptest.NewServer(application(t))
	defer http1.Close()
	for name, tt := range map[string]struct {
		port int
		want string
	}{
		"closed": {closed(t), "timeout: failed to connect service"},
		"deaf":   {deaf(t), "timeout: health rpc did not complete within 300ms"},
		"HTTP/1": {portOf(t, http1.Listener.Addr().String()), "error: health rpc probe failed"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Do(t.Context(), api.Handler{GRPC: &api.GRPCAction{Port: tt.port}}, loopback, allowed(name == "deaf"))
			assert.Equal(t, Failure, got.Outcome)
			assert.Contains(t, got.Output, tt.want)
		})
	}
}

// peer is the server's side of a call. The server's answers are recorded in advance.
type peer struct {
	io.Reader
	bytes.Buffer
}

func (p *peer) Read(b []byte) (int, error) { return p.Reader.Read(b) }

func TestGRPCProbeAcknowledgesPingsAndReadsPadding(t *testing.T) {
	var from bytes.Buffer
	writeFrame(&from, frameSettings, 0, 0, []byte{0, 4, 0, 0, 255, 255})
	writeFrame(&from, framePing, 0, 0, []byte("12345678"))
	writeFrame(&from, framePing, flagAck, 0, []byte("87654321"))
	writeFrame(&from, 0x42, 0, 0, []byte("of no kind that is known"))
	writeFrame(&from, frameGoAway, 0, 0, []byte{0, 0, 0, 1, 0, 0, 0, 0})
	writeFrame(&from, frameHeaders, flagEndHeaders, stream, []byte{0x88})
	writeFrame(&from, frameData, flagPadded, stream, []byte{2, 0, 0, 0, 0, 6, 2 << 3, 7, 1 << 3, 1, 3 << 3, 9, 'p', 'p'})
	p := &peer{Reader: &from}
	status, err := call(p, &api.GRPCAction{}, "10.0.0.1:1", userAgent, time.Second)
	require.NoError(t, err)
	assert.Equal(t, serving, status)

	sent := p.Buffer.Bytes()
	require.True(t, bytes.HasPrefix(sent, []byte(preface)))
	in := bytes.NewReader(sent[len(preface):])
	var kinds []string
	for in.Len() > 0 {
		f, err := readFrame(in)
		require.NoError(t, err)
		kinds = append(kinds, strconv.Itoa(int(f.kind))+"/"+strconv.Itoa(int(f.flags)))
		if f.kind == framePing {
			assert.Equal(t, "12345678", string(f.payload))
		}
	}
	assert.Equal(t, []string{"4/0", "1/4", "0/1", "4/1", "6/1"}, kinds, "the client must acknowledge each frame once, but no acknowledgement")
}

func TestGRPCProbeFailsOnMalformedAnswers(t *testing.T) {
	for name, write := range map[string]func(b *bytes.Buffer){
		"no frame":           func(*bytes.Buffer) {},
		"reset":              func(b *bytes.Buffer) { writeFrame(b, frameReset, 0, stream, []byte{0, 0, 0, 2}) },
		"going away":         func(b *bytes.Buffer) { writeFrame(b, frameGoAway, 0, 0, make([]byte, 8)) },
		"truncated frame":    func(b *bytes.Buffer) { b.Write([]byte{0, 0, 9, 0, 0}) },
		"wrong protocol":     func(b *bytes.Buffer) { b.WriteString("HTTP/1.1 400 Bad Request\r\n\r\n") },
		"another's":          func(b *bytes.Buffer) { writeFrame(b, frameData, 0, 3, []byte{0, 0, 0, 0, 2, 1 << 3, 1}) },
		"compressed":         func(b *bytes.Buffer) { writeFrame(b, frameData, 0, stream, []byte{1, 0, 0, 0, 2, 1 << 3, 1}) },
		"not protobuf":       func(b *bytes.Buffer) { writeFrame(b, frameData, 0, stream, []byte{0, 0, 0, 0, 2, 0xff, 0xff}) },
		"only padding":       func(b *bytes.Buffer) { writeFrame(b, frameData, flagPadded|flagEndStream, stream, []byte{200, 0}) },
		"too long a message": func(b *bytes.Buffer) { writeFrame(b, frameData, 0, stream, []byte{0, 255, 0, 0, 2, 1 << 3, 1}) },
		"wrong lengths":      func(b *bytes.Buffer) { writeFrame(b, frameData, 0, stream, []byte{0, 0, 0, 0, 2, 1<<3 | 2, 99}) },
		"trailers only":      func(b *bytes.Buffer) { writeFrame(b, frameHeaders, flagEndHeaders|flagEndStream, stream, []byte{0x88}) },
	} {
		t.Run(name, func(t *testing.T) {
			var from bytes.Buffer
			write(&from)
			_, err := call(&peer{Reader: &from}, &api.GRPCAction{}, "10.0.0.1:1", userAgent, time.Second)
			assert.Error(t, err)
		})
	}
}

// FuzzGRPCCallNeverPanics checks that the call ends without a panic, whatever the server sends.
func FuzzGRPCCallNeverPanics(f *testing.F) {
	var good bytes.Buffer
	writeFrame(&good, frameData, flagPadded, stream, []byte{2, 0, 0, 0, 0, 2, 1 << 3, 1, 'p', 'p'})
	f.Add(good.Bytes())
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = call(&peer{Reader: bytes.NewReader(b)}, &api.GRPCAction{Service: "db"}, "10.0.0.1:1", userAgent, time.Second)
	})
}
