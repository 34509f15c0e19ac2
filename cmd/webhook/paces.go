// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"time"
)

const (
	// refusedBurst bounds the Events about refused pods that one namespace can cause at once. An agent
	// has the same bound for the Events that programs cause.
	refusedBurst = 25
	// refusedPause is the least average time between two further Events about refused pods of one
	// namespace. The API server keeps an Event for an hour, and an Event has a few kilobytes at most.
	// So the refused pods of one namespace fill less than a megabyte of etcd.
	refusedPause = time.Minute
	// maxPaces bounds the namespaces whose Events are counted. An entry has a few hundred bytes, so all
	// entries take a megabyte. Kubernetes is tested with fewer namespaces that have pods.
	maxPaces = 4096
)

// paces bounds the Events about refused pods, separately for each namespace. The value of a namespace
// is the instant from which another Event keeps the rate of refusedPause without a burst. Each Event
// moves this instant by refusedPause.
type paces map[string]time.Time

// allow reports whether the namespace may have another Event now. If very many namespaces have had
// Events within half an hour, no further namespace may have an Event.
func (p paces) allow(namespace string, now time.Time) bool {
	paid, counted := p[namespace]
	if !counted {
		if len(p) >= maxPaces {
			maps.DeleteFunc(p, func(_ string, paid time.Time) bool { return !paid.After(now) })
		}
		return len(p) < maxPaces
	}
	return paid.Sub(now) <= (refusedBurst-1)*refusedPause
}

// spend counts an Event of the namespace.
func (p paces) spend(namespace string, now time.Time) {
	paid := p[namespace]
	if paid.Before(now) {
		paid = now
	}
	p[namespace] = paid.Add(refusedPause)
}
