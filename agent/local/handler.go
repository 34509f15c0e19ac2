// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Handler returns the handler of the local API. The agent serves this handler on the loopback
// addresses of the pod.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/{kind}/{name}", a.with(getState))
	mux.HandleFunc("POST /v1/{kind}/{name}/holds", a.with(postHold))
	mux.HandleFunc("POST /v1/holds", a.postHolds)
	mux.HandleFunc("GET /v1/{kind}/{name}/holds/{hold}", a.with(followHold))
	mux.HandleFunc("PUT /v1/{kind}/{name}/holds/{hold}", a.with(putHold))
	mux.HandleFunc("DELETE /v1/{kind}/{name}/holds/{hold}", a.with(deleteHold))
	mux.HandleFunc("/locks/{name}", a.syncLock)
	mux.HandleFunc("GET /v1/variable/{name}", a.withVariable(getVariable))
	mux.HandleFunc("PUT /v1/variable/{name}", a.withVariable(a.putVariable))
	mux.HandleFunc("POST /v1/variable/{name}/add", a.withVariable(a.addVariable))
	mux.HandleFunc("GET /v1/barrier/{name}", a.withBarrier(getBarrier))
	mux.HandleFunc("POST /v1/barrier/{name}/wait", a.withBarrier(postWait))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { wildProblem.write(w) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.Header().Set("Allow", http.MethodGet)
			w.WriteHeader(http.StatusMethodNotAllowed) // a stream without a body would tell nothing
			return
		}
		// A web page in a browser can send requests to localhost. The owner of the page can even
		// point the page's own host name to a loopback address. The browser adds the header Origin
		// to each POST, PUT and DELETE of a page. Programs send no Origin.
		if !isLocal(r.Host) || len(r.Header["Origin"]) > 0 {
			hostProblem.write(w)
			return
		}
		// Package http would redirect from such a path, and curl takes a redirect for a success.
		if p := r.URL.EscapedPath(); path.Clean(p) != p {
			wildProblem.write(w)
			return
		}
		if problem := queryProblem(r.URL); problem != nil {
			problem.write(w)
			return
		}
		if !readBody(w, r) {
			usageProblem(fmt.Sprintf("The body is too large or too late. Only a variable takes a body, of at most %d bytes.", mostBody)).write(w)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// bodyTimeout bounds the time until the whole body of a request has arrived.
const bodyTimeout = 2 * time.Second

// mostBody bounds the size of a request's body. Only the value of a Variable comes in a body.
const mostBody = api.MaxValue

// readBody reads the body of a request, and keeps it for the handler. If the body does not arrive,
// or is too large, the result is false. Before the end of the body, package http does not notice
// that a connection has ended. So without readBody a dead program could still bid.
func readBody(w http.ResponseWriter, r *http.Request) bool {
	if r.ContentLength == 0 {
		return true
	}
	control := http.NewResponseController(w)
	// SetReadDeadline fails only if the connection supports no deadlines, as in tests. So its
	// errors are ignored.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
	if err != nil {
		return false // the deadline stays, because package http reads the rest of the body
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	_ = control.SetReadDeadline(time.Time{})
	return true
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

// The method "with" returns a handler that finds the keeper of the claim in the path, and passes
// that keeper to the function "handle".
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
	wait, every, problem := timesOf(query)
	stream, other := flagOf(query.Get("stream"), "stream")
	writes, third := writesAs(k.of, query.Get("as"))
	if problem := cmp.Or(problem, other, third); problem != nil {
		problem.write(w)
		return
	}
	b := &bid{now: wait == 0, stream: stream, every: every, writes: writes}
	if b.stream {
		b.every = 0
	}
	answer := func(ctx context.Context, w http.ResponseWriter) { answerBid(ctx, k, w, b, wait) }
	if stream || wait > 0 {
		takeOver(w, r, answer)
	} else {
		answer(r.Context(), w)
	}
}

// answerBid bids for the slot, and answers with the hold, or follows the hold.
func answerBid(ctx context.Context, k calls, w http.ResponseWriter, b *bid, wait time.Duration) {
	o := k.bidFor(ctx, b, wait)
	switch {
	case o.problem != nil:
		o.problem.write(w)
	case ctx.Err() != nil:
		// The program never learns of the hold. A program that has closed only its half of the connection
		// still reads the answer.
		_ = k.giveBack(context.WithoutCancel(ctx), o.hold.number)
		lostProblem.write(w)
	case b.stream:
		k.follow(ctx, w, o.hold)
	default:
		reply(w, http.StatusCreated, o.answer)
	}
	if o.hold != nil && isUntold(w) {
		retract(k, o.hold)
	}
}

// putHold handles a heartbeat for the hold in the path.
func putHold(k calls, w http.ResponseWriter, r *http.Request) {
	answer, has, err := k.beat(r.Context(), r.PathValue("hold"))
	switch {
	case errors.Is(err, errEnded):
		stoppingProblem.write(w)
	case err != nil:
		unavailableProblem.write(w) // without an answer, package http would send the status 200
	case !has:
		lostProblem.write(w)
	default:
		reply(w, http.StatusOK, answer)
	}
}

// deleteHold gives back the hold in the path. By this call the program states that its work has
// ended.
func deleteHold(k calls, w http.ResponseWriter, r *http.Request) {
	if err := k.giveBack(context.WithoutCancel(r.Context()), r.PathValue("hold")); err != nil {
		stoppingProblem.write(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
