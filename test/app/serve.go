// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// serve waits for the start delay, calls the function "serves", and then accepts requests. The
// answer to GET / is the process's [record.Meta]. The application also answers probes. GET
// /exit?code=N ends the application with the exit code N. GET /burn makes the application use
// processor time. After GET /deadlock the application accepts connections, and answers no request.
func serve(c config, serves func(), asked chan<- int) {
	if c.startDelay > 0 {
		<-time.After(c.startDelay)
	}
	serves()
	mux := http.NewServeMux()
	handleNotes(mux, c.dir)
	handleBurn(mux)
	var h health
	h.handle(mux)
	if c.grpc != "" {
		go func() { fail(h.serveGRPC(c.grpc)) }()
	}
	if c.datagrams != "" {
		go func() { fail(echoDatagrams(c.datagrams)) }()
	}
	if c.https != "" {
		go func() { fail(serveTLS(c.https, mux)) }()
	}
	if err := h.open(c.tcp); err != nil {
		fail(err)
	}
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(meta())
	})
	mux.HandleFunc("GET /exit", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.URL.Query().Get("code"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		asked <- code
	})
	var deadlocked atomic.Bool
	mux.HandleFunc("GET /deadlock", func(http.ResponseWriter, *http.Request) { deadlocked.Store(true) })
	fail(http.ListenAndServe(c.listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if deadlocked.Load() {
			select {}
		}
		mux.ServeHTTP(w, r)
	})))
}

// echoDatagrams answers each datagram with the same datagram.
func echoDatagrams(address string) error {
	conn, err := net.ListenPacket("udp", address) //nolint:noctx // it listens until the end
	for buffer := make([]byte, 64<<10); err == nil; {
		var n int
		var from net.Addr
		if n, from, err = conn.ReadFrom(buffer); err == nil {
			_, err = conn.WriteTo(buffer[:n], from)
		}
	}
	return err
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "app:", err)
	os.Exit(71)
}
