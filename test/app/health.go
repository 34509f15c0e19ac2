// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// health is what the application answers its probes with: 200, until somebody
// says something else. Each process begins healthy.
type health struct {
	mu    sync.Mutex
	codes map[string]int
}

func (h *health) code(probe string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if code, ok := h.codes[probe]; ok {
		return code
	}
	return http.StatusOK
}

// handle serves GET /health/NAME, and GET /set?probe=NAME&code=N, where a code
// of 0 is silence.
func (h *health) handle(mux *http.ServeMux) {
	mux.HandleFunc("GET /health/{probe}", func(w http.ResponseWriter, r *http.Request) {
		code := h.code(r.PathValue("probe"))
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
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.codes == nil {
			h.codes = map[string]int{}
		}
		h.codes[r.URL.Query().Get("probe")] = code
	})
}

// serveGRPC serves grpc.health.v1.Health/Check, which is healthy while the
// probe named grpc is.
func (h *health) serveGRPC(listen string) error {
	const serving, notServing = 1, 2
	server := http.Server{Addr: listen, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		if r.URL.Path != "/grpc.health.v1.Health/Check" {
			w.Header().Set("Grpc-Status", "12")
			return
		}
		status := byte(serving)
		if h.code("grpc") >= http.StatusBadRequest {
			status = notServing
		}
		w.Header().Set("Trailer", "Grpc-Status")
		// A message of two bytes: field 1, a number.
		_, _ = w.Write([]byte{0, 0, 0, 0, 2, 1 << 3, status})
		w.Header().Set("Grpc-Status", "0")
	})
	return server.ListenAndServe()
}

// check is the application's own health command: what GET /health/NAME says on
// this machine, and 1 if that is not well.
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
