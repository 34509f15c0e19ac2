// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"container/list"
	"sync"
	"time"
)

// entryCost counts the bytes that an entry needs beside its key and value: a list element, the
// struct entry, and a place in the map.
const entryCost = 256

// cache keeps as many of the most recently used entries as fit into its maximum of bytes.
type cache[V any] struct {
	mu  sync.Mutex
	max int
	// cost returns the number of bytes that a value occupies.
	cost    func(V) int
	held    int
	order   *list.List // each value is an *entry; the last used entry comes first
	entries map[string]*list.Element
}

type entry[V any] struct {
	key   string
	value V
	at    time.Time
}

func newCache[V any](limit int, cost func(V) int) *cache[V] {
	return &cache[V]{max: limit, cost: cost, order: list.New(), entries: map[string]*list.Element{}}
}

// get returns the value of a key, and the time at which the value was put.
func (c *cache[V]) get(key string) (value V, at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[key]
	if !ok {
		return value, at, false
	}
	c.order.MoveToFront(element)
	e := element.Value.(*entry[V])
	return e.value, e.at, true
}

// put adds a value, and drops the least recently used values until the rest fits.
func (c *cache[V]) put(key string, value V, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[key]; ok {
		c.forget(element)
	}
	e := &entry[V]{key, value, at}
	c.entries[key] = c.order.PushFront(e)
	c.held += c.size(e)
	for c.held > c.max {
		c.forget(c.order.Back())
	}
}

func (c *cache[V]) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[key]; ok {
		c.forget(element)
	}
}

func (c *cache[V]) forget(element *list.Element) {
	e := c.order.Remove(element).(*entry[V])
	delete(c.entries, e.key)
	c.held -= c.size(e)
}

func (c *cache[V]) size(e *entry[V]) int { return entryCost + len(e.key) + c.cost(e.value) }
