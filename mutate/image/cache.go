// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"container/list"
	"sync"
	"time"
)

// cache keeps the entries that were used last.
type cache[V any] struct {
	mu      sync.Mutex
	most    int
	order   *list.List // of *entry, the last used first
	entries map[string]*list.Element
}

type entry[V any] struct {
	key   string
	value V
	at    time.Time
}

func newCache[V any](most int) *cache[V] {
	return &cache[V]{most: most, order: list.New(), entries: map[string]*list.Element{}}
}

// get is the value under a key, and when it was put there.
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

func (c *cache[V]) put(key string, value V, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[key]; ok {
		element.Value = &entry[V]{key, value, at}
		c.order.MoveToFront(element)
		return
	}
	c.entries[key] = c.order.PushFront(&entry[V]{key, value, at})
	if c.order.Len() > c.most {
		oldest := c.order.Remove(c.order.Back()).(*entry[V])
		delete(c.entries, oldest.key)
	}
}

func (c *cache[V]) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[key]; ok {
		c.order.Remove(element)
		delete(c.entries, key)
	}
}
