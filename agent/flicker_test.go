// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// outlive starts a holder and a standby, and kills the holder. After that, a test writes the Lease in
// the holder's place.
func (w *world) outlive() (standby *pod, p *ports) {
	s := w.serve(0)
	p = &ports{}
	standby = w.start("b", behind(p)...)
	standby.connect("b")
	w.pass(10 * time.Second)
	require.Equal(w.t, "True StandingBy", standby.ready())
	s.holder.kill()
	return standby, p
}

// flicker kills a holder that has a standby. Then a thief of the holder's rights changes the Lease, and
// changes the Lease back, for a minute.
func (w *world) flicker(change func(l *kube.Lease)) (standby *pod, p *ports) {
	standby, p = w.outlive()
	stable := w.server.lease(theSlot)
	for n := range int(time.Minute / (10 * time.Millisecond)) {
		l := stable
		l.RenewTime, l.Annotations = time.Now(), maps.Clone(l.Annotations)
		if n%2 == 0 {
			change(&l)
		}
		w.server.put(&l)
		w.pass(10 * time.Millisecond)
	}
	return standby, p
}

// Services and nodes follow each change of a pod's readiness.
func TestFlickeringLeaseSeldomChangesReadinessOfStandby(t *testing.T) {
	for name, change := range map[string]func(l *kube.Lease){
		"successor": func(l *kube.Lease) { l.Annotations[api.LeavingAnnotation] = l.Annotations[api.HoldAnnotation] + " b_u" },
		"workload":  func(l *kube.Lease) { l.Annotations[api.WorkloadAnnotation] = "Deployment/other" },
		"holder":    func(l *kube.Lease) { l.Holder = "" },
		"serving":   func(l *kube.Lease) { delete(l.Annotations, api.ServingAnnotation) },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				b, _ := w.flicker(change)
				assert.LessOrEqual(t, len(b.readiness()), 32)
				w.pass(10 * time.Second)
				assert.Equal(t, "True StandingBy", b.ready(), "the last change is written")
			})
		})
	}
}

// An address in the Lease can be the address of a host outside of the cluster.
func TestFlickeringAddressSeldomMakesStandbyConnect(t *testing.T) {
	simulate(t, func(w *world) {
		_, p := w.flicker(func(l *kube.Lease) { l.Annotations[api.AddressAnnotation] = "10.9.9.9" })
		assert.LessOrEqual(t, p.asked, 72)
		asked := p.asked
		w.pass(time.Minute)
		assert.InDelta(t, asked, p.asked, 1, "the last address answers")
	})
}
