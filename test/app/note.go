// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// note appends an event to the file of notes, with the name of the pod that reports the
// event.
func note(dir, pod, what string) error {
	file, err := os.OpenFile(filepath.Join(dir, "notes"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("open notes: %w", err)
	}
	defer file.Close()
	_, err = fmt.Fprintln(file, pod, what)
	return err
}

// heed writes the name of each arriving signal to the file of notes. The returned context ends with
// the first signal.
func heed(dir string) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(context.Background())
	all := make(chan os.Signal, 16)
	signal.Notify(all)
	go func() {
		for s := range all {
			// The Go runtime sends SIGURG to its own threads, so heed ignores SIGURG.
			if number := s.(syscall.Signal); number != syscall.SIGURG {
				if err := note(dir, os.Getenv("POD_NAME"), cmp.Or(unix.SignalName(number), strconv.Itoa(int(number)))); err != nil {
					fmt.Fprintln(os.Stderr, "app:", err)
				}
				stop()
			}
		}
	}()
	return ctx, stop
}

// handleNotes answers GET /note?say=TEXT, and appends TEXT to the file of notes. The note
// names the application's own pod, or the pod in the header X-Pod.
func handleNotes(mux *http.ServeMux, dir string) {
	mux.HandleFunc("GET /note", func(w http.ResponseWriter, r *http.Request) {
		pod := r.Header.Get("X-Pod")
		if pod == "" {
			pod = os.Getenv("POD_NAME")
		}
		if err := note(dir, pod, r.URL.Query().Get("say")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

// eat takes memory without end, a megabyte at a time.
func eat() {
	var eaten [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += os.Getpagesize() {
			b[i] = 1
		}
		eaten = append(eaten, b)
		<-time.After(10 * time.Millisecond)
		runtime.KeepAlive(eaten)
	}
}
