// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// watchLog notes the instants at which a pod's watches begin and end.
type watchLog struct {
	*link
	mu           sync.Mutex
	begun, ended []time.Time
}

func (l *watchLog) note(times *[]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*times = append(*times, time.Now())
}

// after returns the times that lie after the instant "from".
func (l *watchLog) after(from time.Time, times *[]time.Time) (later []time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range *times {
		if at.After(from) {
			later = append(later, at)
		}
	}
	return later
}

func (l *watchLog) WatchLease(ctx context.Context, name, v string, fn func(kube.WatchEvent)) error {
	l.note(&l.begun)
	defer l.note(&l.ended)
	return l.link.WatchLease(ctx, name, v, fn)
}

// The API server does work for each watch that begins or ends. In the middle of a handover this
// work would delay the writes, and the start of the application.
func TestApplicationStartsBeforeWatchesOfHandover(t *testing.T) {
	simulate(t, func(w *world) {
		logs := map[string]*watchLog{}
		s := w.serve(2, func(c *Config) {
			logs[c.PodName] = &watchLog{link: c.API.(*link)}
			c.API = logs[c.PodName]
		})
		s.holder.agent.Yield()
		next, _ := s.follower()
		before := time.Now()
		w.within(5*time.Second, "the next holder runs", func() bool { return next.running(next.shimOf()) })
		old, following := logs[s.holder.config.PodName], logs[next.config.PodName]
		assert.Empty(t, old.after(before, &old.ended), "the old holder's watches go on")
		assert.Empty(t, following.after(before, &following.begun), "the new holder begins no watch yet")
		w.pass(time.Second)
		assert.Len(t, old.after(before, &old.ended), 2, "the watches of the slot and of the asks")
		assert.Len(t, following.after(before, &following.begun), 1, "the watch of the asks")
	})
}
