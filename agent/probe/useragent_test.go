// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// Applications recognize the kubelet's requests by the kubelet's exact User-Agent, and exclude
// these requests from their logs.
func TestApplicationSeesUserAgentHeaderOfTheKubelet(t *testing.T) {
	for name, tt := range map[string]struct {
		own         []api.HTTPHeader
		asked, want string
	}{
		"kubelet":               {nil, "kube-probe/1.37", "kube-probe/1.37"},
		"vendor's kubelet":      {nil, "kube-probe/1.37+", "kube-probe/1.37+"},
		"other client":          {nil, "curl/8.5.0", "kube-probe/metaparticle"},
		"kubelet with a suffix": {nil, "kube-probe/1.37 (and more)", "kube-probe/metaparticle"},
		"version too long":      {nil, "kube-probe/1.37373737", "kube-probe/metaparticle"},
		"declared header":       {[]api.HTTPHeader{{Name: "user-agent", Value: "me"}}, "me", "me"},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan *http.Request, 10)
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r }))
			defer server.Close()
			action := &api.HTTPGetAction{Path: "/", Port: portOf(t, server.Listener.Addr().String()), HTTPHeaders: tt.own}
			p := &api.Probe{Handler: api.Handler{HTTPGet: action}, TimeoutSeconds: 10, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3}
			m := New(Config{Address: loopback, Probes: map[string]api.Probes{"app": {Readiness: p}}})
			defer m.Close()

			// During the first probe the pod is a standby, so the application gets no request.
			request := httptest.NewRequest(http.MethodGet, api.ProbePath("app", api.ReadinessProbe), nil)
			request.Header.Set("User-Agent", tt.asked)
			m.Handler().ServeHTTP(httptest.NewRecorder(), request)
			require.Empty(t, seen)
			m.Follow(map[string]Child{"app": {Shim: "s1", Hold: "h1"}})
			driven := <-seen
			assert.Equal(t, tt.want, driven.UserAgent(), "a probe that the agent starts")
			<-m.News()
			m.Handler().ServeHTTP(httptest.NewRecorder(), request)
			asked := <-seen
			assert.Equal(t, tt.want, asked.UserAgent(), "a probe that the kubelet starts")
			assert.Empty(t, asked.Referer())
		})
	}
}
