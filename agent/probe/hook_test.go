// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// asked is a request that the server has received.
type asked struct {
	*http.Request
	port int
}

// answering starts a server that answers each request by the handler, and passes the request to
// the test.
func answering(t *testing.T, tls bool, answer http.HandlerFunc) (port int, requests chan asked) {
	t.Helper()
	requests = make(chan asked, 10)
	server := httptest.NewUnstartedServer(nil)
	_, p, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	port, err = strconv.Atoi(p)
	require.NoError(t, err)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- asked{r, port}
		answer(w, r)
	})
	if tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return port, requests
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// docs/reference/compatibility.md: lifecycle/post-start-http lifecycle/pre-stop-http carried
func TestHTTPHookSucceedsWithAnyAnswer(t *testing.T) {
	for _, code := range []int{200, 204, 404, 503} {
		port, requests := answering(t, false, status(code))
		h := api.Handler{HTTPGet: &api.HTTPGetAction{Port: port, Path: "/warm?x=1"}}
		require.NoError(t, SendHook(t.Context(), *h.HTTPGet, loopback, "v1.2.3"))
		r := <-requests
		assert.Equal(t, "/warm?x=1", r.URL.String())
		assert.Equal(t, "GET", r.Method)
		assert.Equal(t, "*/*", r.Header.Get("Accept"))
		assert.Contains(t, r.Header.Get("User-Agent"), "kube-lifecycle/")
	}
}

func TestAnHTTPHookSendsItsHeaders(t *testing.T) {
	port, requests := answering(t, false, status(200))
	h := api.Handler{HTTPGet: &api.HTTPGetAction{Port: port, Host: loopback, HTTPHeaders: []api.HTTPHeader{
		{Name: "Host", Value: "shop.example"}, {Name: "x-a", Value: "1"}, {Name: "X-A", Value: "2"},
		{Name: "User-Agent", Value: "mine"}, {Name: "Accept", Value: ""},
	}}}
	require.NoError(t, SendHook(t.Context(), *h.HTTPGet, "192.0.2.1", "v1.2.3"), "its own host counts before the pod's address")
	r := <-requests
	assert.Equal(t, "shop.example", r.Host)
	assert.Equal(t, []string{"1", "2"}, r.Header["X-A"])
	assert.Equal(t, "mine", r.UserAgent())
	assert.NotContains(t, r.Header, "Accept")
}

func TestHTTPSHookIgnoresTheCertificate(t *testing.T) {
	port, requests := answering(t, true, status(200))
	h := api.Handler{HTTPGet: &api.HTTPGetAction{Port: port, Scheme: "HTTPS"}}
	require.NoError(t, SendHook(t.Context(), *h.HTTPGet, loopback, "v1.2.3"))
	assert.NotNil(t, (<-requests).TLS)
	// A server that speaks only HTTP gets the request again by HTTP, without credentials.
	port, requests = answering(t, false, status(200))
	h.HTTPGet.Port = port
	h.HTTPGet.HTTPHeaders = []api.HTTPHeader{{Name: "Authorization", Value: "secret"}}
	require.NoError(t, SendHook(t.Context(), *h.HTTPGet, loopback, "v1.2.3"))
	r := <-requests
	assert.Nil(t, r.TLS)
	assert.NotContains(t, r.Header, "Authorization")
}

func TestHTTPHookNeverFollowsRedirectsToAnotherHost(t *testing.T) {
	port, requests := answering(t, false, nil)
	first, seen := answering(t, false, func(w http.ResponseWriter, r *http.Request) {
		host := loopback
		if r.URL.Path == "/away" {
			host = "localhost"
		}
		to := url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(port)), Path: "/there"}
		http.Redirect(w, r, to.String(), http.StatusFound)
	})
	h := api.Handler{HTTPGet: &api.HTTPGetAction{Port: first, Path: "/away"}}
	require.NoError(t, SendHook(t.Context(), *h.HTTPGet, loopback, "v1.2.3"))
	assert.Len(t, seen, 1)
	assert.Empty(t, requests)

	loop, rounds := answering(t, false, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/again", http.StatusFound)
	})
	h.HTTPGet.Port = loop
	require.ErrorContains(t, SendHook(t.Context(), *h.HTTPGet, loopback, "v1.2.3"), "stopped after 10 redirects")
	assert.Len(t, rounds, 10)
}

func TestInvalidOrUnreachableHookFails(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := closed.Addr().(*net.TCPAddr).Port
	require.NoError(t, closed.Close())
	get := api.HTTPGetAction{Port: port}
	assert.ErrorContains(t, SendHook(t.Context(), get, loopback, "v1.2.3"), "connection refused")
	assert.ErrorContains(t, SendHook(t.Context(), get, "", "v1.2.3"), "no address")
}
