// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// health has the status codes with which the application answers its probes. A code is
// 200 until a request sets another code.
type health struct {
	mu    sync.Mutex
	codes map[string]int
	// ports has the address of each probe's port. A port is open only while the code of its probe
	// is below 400.
	ports     map[string]string
	listeners map[string]net.Listener
}

func (h *health) code(probe string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if code, ok := h.codes[probe]; ok {
		return code
	}
	return http.StatusOK
}

// set sets the answer to a probe. The probe's port is open only while the code is below 400.
func (h *health) set(probe string, code int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.codes == nil {
		h.codes = map[string]int{}
	}
	h.codes[probe] = code
	address, ok := h.ports[probe]
	if l := h.listeners[probe]; l != nil {
		l.Close()
		delete(h.listeners, probe)
	}
	if !ok || code >= http.StatusBadRequest {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err == nil {
		h.listeners[probe] = l
	}
	return err
}

// open opens the ports in a list of NAME=ADDRESS, separated by commas.
func (h *health) open(ports string) error {
	h.ports, h.listeners = map[string]string{}, map[string]net.Listener{}
	for port := range strings.SplitSeq(ports, ",") {
		name, address, ok := strings.Cut(port, "=")
		if !ok {
			continue
		}
		h.ports[name] = address
		if err := h.set(name, http.StatusOK); err != nil {
			return err
		}
	}
	return nil
}

// handle serves GET /health/NAME, and GET /set?probe=NAME&code=N. While the code of a
// probe is 0, the application does not answer that probe. A request with ?host=HOST gets
// status 421 unless its Host header is HOST. A request with ?needs=ADDRESS gets status 503
// while nothing listens at that address.
func (h *health) handle(mux *http.ServeMux) {
	mux.HandleFunc("GET /health/{probe}", func(w http.ResponseWriter, r *http.Request) {
		code := h.code(r.PathValue("probe"))
		if host := r.URL.Query().Get("host"); host != "" && r.Host != host {
			code = http.StatusMisdirectedRequest
		}
		if needs := r.URL.Query().Get("needs"); needs != "" && !listens(r.Context(), needs) {
			code = http.StatusServiceUnavailable
		}
		if code == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, "%s is %d\n", r.PathValue("probe"), code)
	})
	mux.HandleFunc("GET /set", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.URL.Query().Get("code"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := h.set(r.URL.Query().Get("probe"), code); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

// listens reports whether a process listens at the address.
func listens(ctx context.Context, address string) bool {
	c, err := (&net.Dialer{Timeout: 500 * time.Millisecond}).DialContext(ctx, "tcp", address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// serveTLS serves by HTTPS, with a self-signed certificate.
func serveTLS(listen string, handler http.Handler) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return err
	}
	server := http.Server{Addr: listen, ReadHeaderTimeout: time.Minute, Handler: handler, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}}
	return server.ListenAndServeTLS("", "")
}

// serveGRPC serves grpc.health.v1.Health/Check. A service is healthy while the code
// of the probe with the service's name is below 400.
func (h *health) serveGRPC(listen string) error {
	const serving, notServing = 1, 2
	server := http.Server{Addr: listen, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The request has gRPC's prefix of five bytes, then field 1, a string of less than 128
		// bytes.
		body, _ := io.ReadAll(r.Body)
		service := string(body[min(7, len(body)):])
		w.Header().Set("Content-Type", "application/grpc")
		if r.URL.Path != "/grpc.health.v1.Health/Check" {
			w.Header().Set("Grpc-Status", "12")
			return
		}
		status := byte(serving)
		if h.code(service) >= http.StatusBadRequest {
			status = notServing
		}
		w.Header().Set("Trailer", "Grpc-Status")
		// The answer has gRPC's prefix, then a message of two bytes: field 1, a number.
		_, _ = w.Write([]byte{0, 0, 0, 0, 2, 1 << 3, status})
		w.Header().Set("Grpc-Status", "0")
	})
	return server.ListenAndServe()
}

// check prints the answer of the application at 127.0.0.1:8080 to GET /health/NAME, as an
// application's own health command does. For a bad answer the function returns 1.
func check(probe string) (int, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://127.0.0.1:8080/health/"+probe, http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return 0, err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return 1, nil
	}
	return 0, nil
}
