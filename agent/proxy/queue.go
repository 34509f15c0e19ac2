// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"slices"
	"sync"
)

// dialsAtOnce is the number of connections of one queue that may dial at once. If all connections
// dialled at once, they would keep the processors of a small node busy for tens of milliseconds. The
// connection that has waited longest would then often get its answer last. With a round trip of
// 30 ms between two pods, 256 connections dial within a second.
const dialsAtOnce = 8

// queue has the connections to one port that wait for one event. After the event they dial in the
// order of their arrival. Each port has queues of its own, because dials to a port that does not
// answer take long.
type queue struct {
	mu sync.Mutex
	// waiting has the connections that wait for the event. The field "due" has the connections
	// that may dial as soon as earlier connections have dialled.
	waiting, due []*ticket
	// The field "dialing" is the number of connections that dial.
	dialing int
}

// ticket is the place of one connection in a queue.
type ticket struct {
	queue *queue
	// number is the connection's place in the order of arrival.
	number uint64
	// called is closed when the connection may dial. The field "dials" is true from then until the
	// connection leaves the queue.
	called chan struct{}
	dials  bool
}

// join lets the connection with the given number wait for the event.
func (q *queue) join(number uint64) *ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := &ticket{queue: q, number: number, called: make(chan struct{})}
	q.waiting = append(q.waiting, t)
	return t
}

// arrive lets a new connection wait behind the connections that may dial already. If there are none,
// the new connection may dial at once, and the result is nil.
func (q *queue) arrive(number uint64) *ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.due) == 0 {
		return nil
	}
	t := &ticket{queue: q, number: number, called: make(chan struct{})}
	q.due = append(q.due, t)
	return t
}

// again returns the ticket t if it still waits for the event, or a new ticket for the connection with
// the given number. So a connection that dials before the event keeps its place.
func (q *queue) again(t *ticket, number uint64) *ticket {
	q.mu.Lock()
	waits := slices.Contains(q.waiting, t)
	q.mu.Unlock()
	if waits {
		return t
	}
	return q.join(number)
}

// wake remembers that the event has come. Some connections may still be due since the last event. A
// connection that has dialled in vain may come back later than those that have dialled after it. So
// the numbers decide about the order.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.due, q.waiting = append(q.due, q.waiting...), nil
	slices.SortFunc(q.due, func(a, b *ticket) int { return cmp.Compare(a.number, b.number) })
	q.call()
}

// call starts waiting dials up to the bound. The caller holds the mutex.
func (q *queue) call() {
	for q.dialing < dialsAtOnce && len(q.due) > 0 {
		t := q.due[0]
		q.due = q.due[1:]
		t.dials = true
		q.dialing++
		close(t.called)
	}
}

// leave gives the place up. If the connection was dialling, another connection may then dial. A
// connection without a place has a nil ticket.
func (t *ticket) leave() {
	if t == nil {
		return
	}
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.dials {
		t.dials = false
		q.dialing--
		q.call()
		return
	}
	own := func(other *ticket) bool { return other == t }
	q.waiting, q.due = slices.DeleteFunc(q.waiting, own), slices.DeleteFunc(q.due, own)
}

// wait returns the channel that is closed when the connection may dial. A nil ticket is never
// called.
func (t *ticket) wait() <-chan struct{} {
	if t == nil {
		return nil
	}
	return t.called
}
