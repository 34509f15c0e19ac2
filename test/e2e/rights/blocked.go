// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// ghost returns a Lease that names a holder, although no pod holds it.
func ghost(name string, ours bool, seconds int32) *coordinationv1.Lease {
	now := metav1.NowMicro()
	return &coordinationv1.Lease{ObjectMeta: labelled(name, ours), Spec: coordinationv1.LeaseSpec{
		HolderIdentity: new("ghost_1"), LeaseDurationSeconds: &seconds, RenewTime: &now,
	}}
}

// A person with the right to create Leases can give a Lease the name of a slot. A Lease that
// has Metaparticle's label blocks the slot for an hour at most. The API server refuses the
// deletion of such a Lease, and names the remedy. If the Lease lacks this label, an administrator
// can delete the Lease.
func TestAdministratorFreesSlotBlockedByAUsersLease(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	leases := s.Client.CoordinationV1().Leases(s.Namespace)
	_, err := leases.Create(t.Context(), ghost("lock.ours", true, int32(api.MaxLeaseDuration/time.Second)), metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = leases.Create(t.Context(), ghost("lock.others", false, math.MaxInt32), metav1.CreateOptions{})
	require.NoError(t, err, "somebody else's elector is none of our business")

	ours, others := app.Locked("ours", "ours"), app.Locked("others", "others")
	for _, a := range []app.App{ours, others} {
		app.Create(s, a)
		app.AwaitGated(s, a)
	}
	out, err := kubectl.Run(s, "", "delete", "lease", "lock.ours")
	require.Error(t, err, out)
	const shorter = `{"spec":{"leaseDurationSeconds":30}}`
	require.Contains(t, out, fmt.Sprintf("kubectl -n %s patch lease lock.ours --type=merge -p '%s'", s.Namespace, shorter))
	kubectl.Must(s, "", "patch", "lease", "lock.ours", "--type=merge", "-p", shorter)
	kubectl.Must(s, "", "delete", "lease", "lock.others")
	for _, a := range []app.App{ours, others} {
		app.AwaitRunning(s, a, space.StartTimeout)
	}
}
