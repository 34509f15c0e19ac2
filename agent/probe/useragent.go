// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"context"
	"net/http"
	"regexp"
)

// userAgent begins as the kubelet's. The agent uses this name until the kubelet has
// asked for the first time.
const userAgent = "kube-probe/metaparticle"

// kubeletsAgent matches the name by which a kubelet asks. Strangers can reach the
// agent's port as well, and put no other text into an application's log.
var kubeletsAgent = regexp.MustCompile(`^kube-probe/[0-9]{1,3}\.[0-9]{1,3}\+?$`)

type userAgentKey struct{}

// meet learns the name by which the node's kubelet asks.
func (m *Monitor) meet(r *http.Request) {
	name := r.UserAgent()
	if !kubeletsAgent.MatchString(name) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kubelet = name
}

// asKubelet makes the probes under ctx bear the kubelet's name.
func (m *Monitor) asKubelet(ctx context.Context) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	return context.WithValue(ctx, userAgentKey{}, m.kubelet)
}

// userAgentOf returns the name that a probe under ctx bears.
func userAgentOf(ctx context.Context) string {
	name, _ := ctx.Value(userAgentKey{}).(string)
	return cmp.Or(name, userAgent)
}
