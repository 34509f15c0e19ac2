// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// burnTurn is the period of burn's loop, which is far shorter than the interval of any
// measurement of processor time.
const burnTurn = 50 * time.Millisecond

// handleBurn answers GET /burn?milli=N, and uses N thousandths of a processor
// from then on.
func handleBurn(mux *http.ServeMux) {
	var milli atomic.Int64
	var begin sync.Once
	mux.HandleFunc("GET /burn", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.URL.Query().Get("milli"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		milli.Store(n)
		begin.Do(func() { go burn(&milli) })
	})
}

func burn(milli *atomic.Int64) {
	for range time.Tick(burnTurn) {
		// The loop counts used time, not elapsed time. So a process that had to wait for a
		// processor catches up.
		until := used() + time.Duration(milli.Load())*burnTurn/1000
		for used() < until {
		}
	}
}

// used returns the processor time of this process so far.
func used() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
