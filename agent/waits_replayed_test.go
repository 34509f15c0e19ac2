// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// The holder has vanished before the pod's first look. The API server has forgotten the version
// that the pod has read, so the pod watches without a version. Then an API server that lags behind
// first sends an old state of the Lease.
func TestPodNeverSkipsBecauseOfOldEvents(t *testing.T) {
	simulate(t, func(w *world) {
		now := time.Now()
		l := kube.Lease{Name: theSlot, Holder: "gone_u", DurationSeconds: 30, AcquireTime: now.Add(-time.Hour), Annotations: map[string]string{
			api.HoldAnnotation: "h", api.ServingAnnotation: now.Add(-time.Minute).UTC().Format(time.RFC3339Nano),
		}}
		renewed := func(ago time.Duration) kube.WatchEvent {
			l.RenewTime = now.Add(-ago)
			w.server.put(&l)
			l = w.server.lease(theSlot)
			return kube.WatchEvent{Type: kube.Modified, Lease: l.Clone(), ResourceVersion: l.ResourceVersion}
		}
		old, last := renewed(10*time.Second), renewed(5*time.Second)
		b := w.start("b", skips)
		b.link.set(func(l *link) { l.forgetful = true })
		b.connect("s2")
		w.pass(time.Second)
		w.sends(old)
		w.sends(last)
		w.pass(40 * time.Second)
		assert.Empty(t, b.gates.codes(), "the pod does not skip")
		assert.True(t, b.running("s2"))
	})
}
