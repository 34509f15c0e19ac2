// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// Short is the shortest lease there is: 4.67 s to renew, 1.33 s to stop
// (plus 1 s to be killed), 2 s of margin.
const Short = 10 * time.Second

// Lasting rides out 9 s in which a starved machine renews nothing: losses
// are for the tests of losses. Whoever gets a slot within released of its loss got
// it by a release: the last renewal is at most 5 s old, or a little more, and what
// has to expire does so 25 s later.
const (
	Lasting  = 30 * time.Second
	Released = Lasting / 2
)

// OfDeployment is the Lease of a Deployment's singleton.
func OfDeployment(name string) string {
	return api.SingletonLease(api.Workload{Group: "apps", Kind: "Deployment", Name: name}, "")
}

// Long rides out 39 s without the API server: longer than one that is
// killed and started takes on any machine.
const Long = 2 * time.Minute

// Hold is the hold that a slot's Lease names, on the API server's word: what a
// watch has seen may be old.
func Hold(s *space.Space, slot string) string {
	s.Helper()
	lease, err := s.Client.CoordinationV1().Leases(s.Namespace).Get(s.Context(), slot, metav1.GetOptions{})
	require.NoError(s, err)
	return lease.Annotations[api.HoldAnnotation]
}

// Write changes a Lease as an administrator can.
func Write(s *space.Space, slot string, change func(*coordinationv1.Lease)) {
	s.Helper()
	leases := s.Client.CoordinationV1().Leases(s.Namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		lease, err := leases.Get(s.Context(), slot, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(lease)
		_, err = leases.Update(s.Context(), lease, metav1.UpdateOptions{})
		return err
	})
	require.NoError(s, err)
}

// Steal makes somebody who is no pod the holder of a slot.
func Steal(s *space.Space, slot string) {
	s.Helper()
	thief, now := "thief", metav1.NowMicro()
	Write(s, slot, func(lease *coordinationv1.Lease) {
		lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.AcquireTime = &thief, &now, &now
	})
}

func GiveBack(s *space.Space, slot string) {
	s.Helper()
	nobody := ""
	Write(s, slot, func(lease *coordinationv1.Lease) { lease.Spec.HolderIdentity = &nobody })
}

// Fault is for a holder that a fault is done to: long enough for the next
// holder, and for this one until then, to ride out the 3 s for which a busy machine
// stalls (it rides out 5.6 s), and no longer, because it is waited for.
const Fault = 20 * time.Second

// Budget is how a lease is divided.
func Budget(t *testing.T, d time.Duration) api.Budget {
	b, err := api.NewBudget(d)
	require.NoError(t, err)
	return b
}

// Renewed is when the last renewal of a slot was written, on the record's clock
// and the API server's word: what a watch has seen may be old.
func Renewed(s *space.Space, slot string) time.Duration {
	s.Helper()
	lease, err := s.Client.CoordinationV1().Leases(s.Namespace).Get(s.Context(), slot, metav1.GetOptions{})
	require.NoError(s, err)
	require.NotNil(s, lease.Spec.RenewTime)
	return record.Now() - time.Since(lease.Spec.RenewTime.Time)
}

const (
	// Handover bounds a release, its watch event and an acquisition, which
	// take tens of milliseconds; the rest is a machine that five tests share.
	Handover = 5 * time.Second
	// Takeover bounds what follows an expiry in the same way: a lease, counted
	// from the last renewal.
	Takeover = Short + Handover
)
