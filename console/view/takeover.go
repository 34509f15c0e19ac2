// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
)

// supportersOf returns the supporters of the Lease's holder; zero if it wants none.
func supportersOf(l *coordinationv1.Lease) api.Supporters {
	text := l.Annotations[api.SupportersAnnotation]
	if len(text) > Notes[api.SupportersAnnotation] {
		return api.Supporters{}
	}
	return api.ParseSupporters(text, HolderOf(l), l.Annotations[api.HoldAnnotation])
}

// Takeover says for people how long after the last renewal other pods take the slot; empty if that takes the
// usual time.
func Takeover(l *coordinationv1.Lease) string {
	lasts := time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0)) * time.Second
	switch list := supportersOf(l); {
	case len(list.IDs) > 0 && list.Wait < lasts:
		return fmt.Sprintf("takeover by %s in %v; others in %v", supporting(list), list.Wait, lasts)
	case lasts > api.DefaultLeaseDuration:
		return fmt.Sprintf("takeover in %v", lasts)
	}
	return ""
}

// offers is the time in which a new holder finds supporters, if there are any.
const offers = time.Minute

// survives says how long an outage of the API server may last, and who makes that possible.
func (c conversation) survives() string {
	h := c.Holder
	b, err := api.NewBudget(h.supporters.Wait)
	if err != nil || len(h.supporters.IDs) == 0 || h.lasts <= h.supporters.Wait || c.mute() != "" {
		return ""
	}
	outage := api.Budget{Supported: h.lasts}.SupportedDeadline() - b.Kill - b.Drain - b.Renew - b.Retry
	return fmt.Sprintf("%s survives %v without the API server, supported by %s.", h.Pod, outage.Truncate(time.Second), supporting(h.supporters))
}

// supporting returns the names of the supporters.
func supporting(list api.Supporters) string {
	var pods []string
	for _, identity := range list.Names() {
		pods = append(pods, api.Shortened(api.PodOf(identity), MaxIdentity))
	}
	return strings.Join(pods, ", ")
}

// unsupported says that the holder has no supporters, although it wants some, or that one in its list cannot answer.
func (c conversation) unsupported() string {
	h, mute := c.Holder, c.mute()
	if h.Since == nil || h.Renewed == nil || h.Renewed.Sub(*h.Since) < offers || h.supporters.Key == "" || len(h.supporters.IDs) > 0 && mute == "" {
		return ""
	}
	b, err := api.NewBudget(h.supporters.Wait)
	if err != nil {
		return ""
	}
	means := fmt.Sprintf("so an outage of the API server stops its application %v after the last renewal, as without %s.", b.RenewDeadline, api.FailsafeAnnotation)
	if mute != "" {
		return fmt.Sprintf("The Lease names %s as supporter of %s, but that pod is gone, or its agent has restarted, %s This lasts for a minute. If it lasts longer, the API server refuses the holder's writes: look at the log of its %s.", mute, h.Pod, means, api.AgentContainer)
	}
	means = fmt.Sprintf("No standby supports %s, %s", h.Pod, means)
	if c.alone {
		return means + " No other pod claims the slot: add a replica, or write \",alone\" behind the time."
	}
	return fmt.Sprintf("%s Look whether standbys run and do not restart, and whether a NetworkPolicy keeps %s from their port %d.", means, h.Pod, api.AgentPort)
}

// mute returns the pod of a supporter in the list whose agent process has ended; empty for none. Such a process neither
// promises anything nor takes the slot early.
func (c conversation) mute() string {
	list := c.Holder.supporters
	for i, identity := range list.Names() {
		waits := slices.ContainsFunc(c.Standbys, func(p *Standby) bool { return p.Identity == identity })
		again := slices.ContainsFunc(c.words, func(w api.Word) bool {
			return w.Say == api.Supports && w.To == c.Holder.Hold && w.Identity == identity && api.SupporterID(identity, w.Contact.Key) != list.IDs[i]
		})
		if again || !waits && !c.Holder.Gone { // without the right to read pods, the holder's is gone, too
			return api.Shortened(api.PodOf(identity), MaxIdentity)
		}
	}
	return ""
}
