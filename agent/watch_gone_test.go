// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// goneOnce is a link whose proxy answers 410 to a read of the slot's Lease, after the field "gone"
// was set.
type goneOnce struct {
	*link
	gone atomic.Bool
}

func (c *goneOnce) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	if name == theSlot && c.gone.CompareAndSwap(true, false) {
		return nil, &kube.StatusError{Code: 410}
	}
	return c.link.GetLease(ctx, name)
}

// The answer 410 to a read says nothing about the versions of the Lease. If the standby then watched
// without a read, the standby would take the slot only after hours.
func TestStandbyReadsAgainAfterGone(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		var c *goneOnce
		b := w.start("b", func(cf *Config) { c = &goneOnce{link: cf.API.(*link)}; cf.API = c })
		b.connect("s2")
		w.pass(time.Minute)
		c.gone.Store(true)
		b.link.set(func(l *link) { l.refuse = errors.New("connection reset") }) // the watches break
		b.link.set(func(l *link) { l.refuse = nil })
		w.pass(time.Minute)
		assert.False(t, c.gone.Load(), "the standby has read the Lease again")
		a.gates.end("s1")
		w.within(time.Minute, "standby runs", func() bool { return b.running("s2") })
	})
}
