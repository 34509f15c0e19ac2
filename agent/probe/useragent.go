// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"context"
	"net/http"
	"strings"
)

// userAgent is the User-Agent of the agent's probes until the kubelet's first request. Then the
// agent uses the kubelet's User-Agent. Both User-Agents have the prefix kube-probe/, because
// applications may recognize probes by that prefix.
const userAgent = "kube-probe/metaparticle"

// isKubelets reports whether the text is a kubelet's User-Agent, such as kube-probe/1.37. Other clients
// can reach the agent's port, and must not put other text into an application's log. A regular
// expression would be shorter here, but package regexp adds 3 % to the agent's program.
func isKubelets(text string) bool {
	version, found := strings.CutPrefix(strings.TrimSuffix(text, "+"), "kube-probe/")
	major, minor, _ := strings.Cut(version, ".")
	return found && isShortNumber(major) && isShortNumber(minor)
}

// isShortNumber reports whether the text has between one and three decimal digits, and nothing else.
func isShortNumber(text string) bool {
	return text != "" && len(text) <= 3 && strings.Trim(text, "0123456789") == ""
}

type userAgentKey struct{}

// meet stores the kubelet's User-Agent, if the request has one.
func (m *Monitor) meet(r *http.Request) {
	name := r.UserAgent()
	if !isKubelets(name) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kubelet = name
}

// asKubelet returns a context whose probes use the kubelet's User-Agent.
func (m *Monitor) asKubelet(ctx context.Context) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	return context.WithValue(ctx, userAgentKey{}, m.kubelet)
}

// userAgentOf returns the kubelet's User-Agent that ctx carries for a probe, or the constant
// userAgent if ctx carries none.
func userAgentOf(ctx context.Context) string {
	name, _ := ctx.Value(userAgentKey{}).(string)
	return cmp.Or(name, userAgent)
}
