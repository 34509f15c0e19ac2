// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRequestWithAForeignHostHeaderIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "pod", "lock/a")
		call := func(host, path string) (code int, reason any) {
			w, r := httptest.NewRecorder(), request(t.Context(), http.MethodPost, path)
			r.Host = host
			p.handler.ServeHTTP(w, r)
			var body map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
			return w.Code, body["reason"]
		}
		for _, host := range []string{"rebound.example:13131", "10.0.0.1:13131", "localhost.rebound.example", "pod", ""} {
			for _, path := range []string{"/v1/lock/a/holds", "/locks/a", "/"} {
				code, reason := call(host, path)
				assert.Equal(t, http.StatusForbidden, code, host)
				assert.Equal(t, hostProblem.Reason, reason, host)
			}
		}
		assert.Empty(t, s.Lease("lock.a").Holder)
		for _, host := range []string{"localhost:13131", "127.0.0.1:13131", "[::1]:13131", "LOCALHOST", "127.0.0.1", "::1", "[::1]"} {
			code, reason := call(host, "/")
			assert.Equal(t, http.StatusNotFound, code, host)
			assert.Equal(t, wildProblem.Reason, reason, host)
		}
		w, r := httptest.NewRecorder(), request(t.Context(), http.MethodPost, "/v1/lock/a/holds")
		r.Header.Set("Origin", "https://page.example")
		p.handler.ServeHTTP(w, r)
		assert.Equal(t, http.StatusForbidden, w.Code, "a web page sends calls to localhost, too")
		<-time.After(time.Second)
		assert.Empty(t, s.Lease("lock.a").Holder)
	})
}
