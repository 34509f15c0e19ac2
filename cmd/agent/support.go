// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
)

// supportPath is where an agent answers the holder that it supports.
const supportPath = "/support"

// longestMessage bounds a message, and an answer, in bytes. Both have a signature of 128 digits.
const longestMessage = 512

// contactOf returns the address at which other pods reach the agent's server; the zero value for a server that
// listens nowhere, or only for its own machine.
func contactOf(c agent.Config, listen string) netip.AddrPort {
	own, err := netip.ParseAddr(c.PodIP)
	at := strings.LastIndexByte(listen, ':')
	if err != nil || at != 0 {
		return netip.AddrPort{}
	}
	port, err := strconv.ParseUint(listen[at+1:], 10, 16)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(own, uint16(port))
}

// answerWithin bounds the time until the agent's loop answers.
const answerWithin = 5 * time.Second

// answerer passes messages to the agent, and sends its answers.
type answerer func(ctx context.Context, message string) (answer string, err error)

// ServeHTTP implements [http.Handler].
func (a answerer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	message, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longestMessage))
	if err != nil {
		http.Error(w, "the message is too long", http.StatusRequestEntityTooLarge)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
	defer cancel()
	answer, err := a(ctx, string(message))
	if err != nil {
		http.Error(w, "no promise", http.StatusConflict)
		return
	}
	_, _ = io.WriteString(w, answer) // without an answer, the holder asks again
}

// asker sends messages to other pods. It keeps no connection, because it seldom sends any, and asks no proxy.
var asker = http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: scrapeHeader},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// askPod sends a message to the agent of another pod, and returns its answer.
func askPod(ctx context.Context, contact netip.AddrPort, message string) (answer string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+contact.String()+supportPath, strings.NewReader(message))
	if err != nil {
		return "", err
	}
	response, err := asker.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, longestMessage))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the pod answers %s", response.Status)
	}
	return string(text), err
}
