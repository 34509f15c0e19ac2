// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent"
)

func TestContactIsThePortThatOtherPodsReach(t *testing.T) {
	for _, c := range []struct{ ip, listen, want string }{
		{"10.0.0.1", ":15090", "10.0.0.1:15090"},
		{"fd00::1", ":15090", "[fd00::1]:15090"},
		{"10.0.0.1", "", "invalid AddrPort"},
		{"10.0.0.1", "127.0.0.1:15090", "invalid AddrPort"},
		{"10.0.0.1", ":http", "invalid AddrPort"},
		{"", ":15090", "invalid AddrPort"},
	} {
		assert.Equal(t, c.want, contactOf(agent.Config{Pod: agent.Pod{PodIP: c.ip}}, c.listen).String(), c)
	}
}

func serveSupport(t *testing.T, h http.Handler) netip.AddrPort {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	return netip.MustParseAddrPort(at.Host)
}

func TestAskGetsTheAnswerOfAnotherAgent(t *testing.T) {
	contact := serveSupport(t, answerer(func(_ context.Context, message string) (string, error) {
		if message != "ask" {
			return "", errors.New("no holder of mine")
		}
		return "promise", nil
	}))
	answer, err := askPod(t.Context(), contact, "ask")
	require.NoError(t, err)
	assert.Equal(t, "promise", answer)
	_, err = askPod(t.Context(), contact, "another ask")
	require.ErrorContains(t, err, "409")
	_, err = askPod(t.Context(), contact, strings.Repeat("a", longestMessage+1))
	require.ErrorContains(t, err, "413")
}

// A pod that is no agent may answer, if another pod has got the address.
func TestAskTakesLittleFromAStranger(t *testing.T) {
	elsewhere := 0
	other := serveSupport(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	contact := serveSupport(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+other.String()+"/secret", http.StatusTemporaryRedirect)
	}))
	_, err := askPod(t.Context(), contact, "ask")
	require.ErrorContains(t, err, "307")
	assert.Zero(t, elsewhere)

	contact = serveSupport(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<20))
	}))
	answer, err := askPod(t.Context(), contact, "ask")
	require.NoError(t, err)
	assert.Len(t, answer, longestMessage)
}
