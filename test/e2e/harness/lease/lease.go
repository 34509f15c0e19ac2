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

// Short is the shortest lease. Its holder has 4.67 s to renew, 2.33 s to stop and 1 s to
// be killed. The margin is 2 s.
const Short = 10 * time.Second

const (
	// Lasting is for tests in which no pod should lose its slot. A holder survives 9 s in
	// which its starved agent renews nothing.
	Lasting = 30 * time.Second
	// Released bounds the time from the end of a holder to the next start, if the holder has
	// released a lasting lease. After the death of a holder, the expiry takes at least 25 s,
	// because the last renewal is at most 5 s old.
	Released = Lasting / 2
)

// OfDeployment returns the name of the Lease of a Deployment's singleton.
func OfDeployment(name string) string {
	return api.SingletonLease(api.Workload{Group: "apps", Kind: "Deployment", Name: name}, "")
}

// Long is for tests that restart the API server. A holder survives 39 s without the API server,
// which starts again within that time on any machine.
const Long = 2 * time.Minute

// Hold returns the hold that a slot's Lease names. Hold reads the Lease from the API server,
// because a watch may be late.
func Hold(s *space.Space, slot string) string {
	s.Helper()
	lease, err := s.Client.CoordinationV1().Leases(s.Namespace).Get(s.Context(), slot, metav1.GetOptions{})
	require.NoError(s, err)
	return lease.Annotations[api.HoldAnnotation]
}

// Supporters returns the supporters of a slot's holder.
func Supporters(s *space.Space, slot string) api.Supporters {
	s.Helper()
	l := s.Lease(slot)
	return api.ParseSupporters(l.Annotations[api.SupportersAnnotation], space.IdentityOf(l), l.Annotations[api.HoldAnnotation])
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

// thief is the holder that [Steal] writes into a Lease. The thief is not a pod.
const thief = "thief"

// Steal writes the name of a thief as the holder into a slot's Lease.
func Steal(s *space.Space, slot string) {
	s.Helper()
	now := metav1.NowMicro()
	Write(s, slot, func(lease *coordinationv1.Lease) {
		lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.AcquireTime = new(thief), &now, &now
	})
}

// GiveBack frees a slot after [Steal]. On a busy machine the thief's lease may expire before the call,
// and a pod may hold the slot. GiveBack does not free the slot of such a pod, because another pod
// would then start beside the pod.
func GiveBack(s *space.Space, slot string) {
	s.Helper()
	Write(s, slot, func(lease *coordinationv1.Lease) {
		if space.IdentityOf(lease) == thief {
			lease.Spec.HolderIdentity = new("")
		}
	})
}

// Fault is the lease duration of tests in which a holder loses its slot. The tests wait for
// the expiry, so the duration is short. With this duration a holder survives a delay of its
// agent by up to 5.6 s. That is enough, because a busy machine delays an agent by 3 s at most.
const Fault = 20 * time.Second

// Budget returns the budget of a lease duration.
func Budget(t *testing.T, d time.Duration) api.Budget {
	b, err := api.NewBudget(d)
	require.NoError(t, err)
	return b
}

// Renewed returns the instant of a slot's last renewal, on the record's clock. Renewed reads the
// Lease from the API server, because a watch may be late.
func Renewed(s *space.Space, slot string) time.Duration {
	s.Helper()
	lease, err := s.Client.CoordinationV1().Leases(s.Namespace).Get(s.Context(), slot, metav1.GetOptions{})
	require.NoError(s, err)
	require.NotNil(s, lease.Spec.RenewTime)
	return record.Now() - time.Since(lease.Spec.RenewTime.Time)
}

const (
	// Handover is the bound of a release, its watch event and an acquisition. These three steps
	// take tens of milliseconds; the rest is for a machine that five tests share.
	Handover = 5 * time.Second
	// Takeover is the bound of an expiry of a short lease and the acquisition that
	// follows.
	Takeover = Short + Handover
)
