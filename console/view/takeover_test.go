// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestSlotSaysWhenOthersTakeIt(t *testing.T) {
	key := strings.Repeat("ab", 32)
	list := func(holder, hold string, pods ...string) string {
		s := api.Supporters{Number: 3, Wait: 30 * time.Second, Key: key}
		for _, pod := range pods {
			s.IDs = append(s.IDs, api.SupporterID(api.Identity(pod, pod+"-uid"), key))
		}
		return s.Text(api.Identity(holder, holder+"-uid"), hold)
	}
	huge := strings.Repeat("x", 1<<18)
	const means = "No standby supports old, so an outage of the API server stops its application 15s after the last renewal, as without metaparticle.io/failsafe. "
	const gone = "The Lease names b as supporter of old, but that pod is gone, or its agent has restarted, so an outage of the API server stops its application 15s after the last renewal, as without metaparticle.io/failsafe. " +
		"This lasts for a minute. If it lasts longer, the API server refuses the holder's writes: look at the log of its metaparticle-agent."
	for name, c := range map[string]struct {
		seconds int32
		list    string
		held    time.Duration
		alone   bool
		pods    []string
		words   string
		says    string
		why     string
	}{
		"default":         {seconds: 30, held: time.Hour},
		"failsafe, alone": {seconds: 750, held: time.Hour, says: "takeover in 12m30s"},
		"two supporters": {seconds: 750, list: list("old", "h1", "b", "c"), held: time.Hour, pods: []string{"old", "b", "c"}, says: "takeover by b, c in 30s; others in 12m30s",
			why: "old survives 10m9s without the API server, supported by b, c."},
		"pods are unreadable": {seconds: 750, list: list("old", "h1", "b"), held: time.Hour, says: "takeover by b in 30s; others in 12m30s", why: "old survives 10m9s without the API server, supported by b."},
		"a supporter is gone": {seconds: 750, list: list("old", "h1", "b"), held: time.Hour, pods: []string{"old"}, says: "takeover by b in 30s; others in 12m30s", why: gone},
		"its agent has restarted": {
			seconds: 750, list: list("old", "h1", "b"), held: time.Hour, pods: []string{"old", "b"}, says: "takeover by b in 30s; others in 12m30s", why: gone,
			words: api.Words{{Say: api.Supports, Identity: "b_b-uid", To: "h1", Contact: api.Contact{Address: netip.MustParseAddrPort("10.0.0.2:13132"), Key: strings.Repeat("cd", 32)}}}.String(),
		},
		"list of another hold": {seconds: 750, list: list("old", "h0", "b"), held: time.Hour, says: "takeover in 12m30s"},
		"list of another pod":  {seconds: 30, list: list("b", "h1"), held: time.Hour},
		"unsupported": {
			seconds: 30, list: list("old", "h1"), held: time.Hour,
			why: means + "Look whether standbys run and do not restart, and whether a NetworkPolicy keeps old from their port 13132.",
		},
		"unsupported, and alone": {
			seconds: 30, list: list("old", "h1"), held: time.Hour, alone: true,
			why: means + `No other pod claims the slot: add a replica, or write ",alone" behind the time.`,
		},
		"unsupported, and new": {seconds: 30, list: list("old", "h1"), held: 59 * time.Second},
		"a huge list":          {seconds: 750, list: list("old", "h1", huge), held: time.Hour, says: "takeover in 12m30s"},
	} {
		t.Run(name, func(t *testing.T) {
			l := lease(web, "old", map[string]string{api.HoldAnnotation: "h1", api.SupportersAnnotation: c.list})
			l.Spec.LeaseDurationSeconds = new(c.seconds)
			l.Spec.RenewTime = &metav1.MicroTime{Time: l.Spec.AcquireTime.Add(c.held)}
			next := lease(api.NextLease(web), "", map[string]string{})
			if c.alone {
				next.Annotations[api.AloneAnnotation] = api.AloneTrue
			}
			next.Annotations[api.WordsAnnotation] = c.words
			state := State{Leases: []*coordinationv1.Lease{l, next}, Now: noon}
			for _, pod := range c.pods {
				state.Pods = append(state.Pods, gated(pod, web))
			}
			s := state.Slots([]string{web}, 1)[0]
			assert.Equal(t, c.says, s.Holder.Takeover)
			assert.Equal(t, c.why, strings.Join(s.Why, "\n"))
		})
	}
}
