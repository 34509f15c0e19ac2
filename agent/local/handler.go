// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
)

// Handler returns the handler of the local API, which is served on the pod's addresses for
// local traffic.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/{kind}/{name}", a.with(getState))
	mux.HandleFunc("POST /v1/{kind}/{name}/holds", a.with(postHold))
	mux.HandleFunc("GET /v1/{kind}/{name}/holds/{hold}", a.with(followHold))
	mux.HandleFunc("PUT /v1/{kind}/{name}/holds/{hold}", a.with(putHold))
	mux.HandleFunc("DELETE /v1/{kind}/{name}/holds/{hold}", a.with(deleteHold))
	mux.HandleFunc("/locks/{name}", a.syncLock)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { wildProblem.write(w) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A web page in some browser can send requests to localhost under a name of its own.
		if !isLocal(r.Host) {
			hostProblem.write(w)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// isLocal reports whether the Host header names this machine.
func isLocal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// with finds the keeper of the claim that the path names.
func (a *API) with(handle func(calls, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		word, name := r.PathValue("kind"), r.PathValue("name")
		k := a.keeper(word, name)
		if k == nil {
			undeclaredProblem(word, name).write(w)
			return
		}
		handle(calls{k}, w, r)
	}
}

// postHold bids for the slot.
func postHold(k calls, w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	wait, problem := seconds(query.Get("wait"), 0, "wait")
	every, other := seconds(query.Get("heartbeat"), defaultBeats, "heartbeat")
	switch {
	case problem != nil:
		problem.write(w)
		return
	case other != nil:
		other.write(w)
		return
	case every < time.Second:
		usageProblem("The heartbeat is at least 1s.").write(w)
		return
	}
	b := &bid{now: wait == 0, stream: query.Get("stream") == "true", every: every}
	if b.stream {
		b.every = 0
	}
	o := k.bidFor(r.Context(), b, wait)
	switch {
	case o.problem != nil:
		o.problem.write(w)
	case r.Context().Err() != nil:
		_ = k.giveBack(context.WithoutCancel(r.Context()), o.hold.number) // the program never learns of the hold
	case b.stream:
		k.follow(w, r, o.hold)
	default:
		reply(w, http.StatusCreated, newHolding(k.of, o.hold, held, o.good))
	}
}

// putHold takes in a heartbeat.
func putHold(k calls, w http.ResponseWriter, r *http.Request) {
	h, good, now, err := k.beat(r.Context(), r.PathValue("hold"))
	switch {
	case errors.Is(err, errEnded):
		stoppingProblem.write(w)
	case err != nil:
	case h == nil || now == lost:
		lostProblem.write(w)
	default:
		reply(w, http.StatusOK, newHolding(k.of, h, now, good))
	}
}

// deleteHold gives the hold back. The program says by this call that its work has ended.
func deleteHold(k calls, w http.ResponseWriter, r *http.Request) {
	if err := k.giveBack(context.WithoutCancel(r.Context()), r.PathValue("hold")); err != nil {
		stoppingProblem.write(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// seconds reads a duration of the query.
func seconds(text string, otherwise time.Duration, name string) (time.Duration, *problem) {
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > 24*time.Hour {
		return 0, usageProblem("The value of ?" + name + " is no duration between 0s and 24h. Write 30s or 5m.")
	}
	return d, nil
}
