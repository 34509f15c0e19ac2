// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

func TestAccountWithoutClaimsLosesItsLeaseRights(t *testing.T) {
	before := gated("a", "till", "lock.x")
	w := newWorld(t, lasting(before, "60s"), gated("b", "biller", "lock.x"))
	r := w.process()
	w.settle(r)
	w.remove(before)
	assert.Equal(t, 60*time.Second, w.settle(r))
	w.now = w.now.Add(59 * time.Second)
	// The other account's agent renews. Its renewal does not show that the first account's agent
	// is alive.
	w.holds("lock.x", "b_1")
	assert.Equal(t, time.Second, w.settle(r))
	require.NotNil(t, w.role("till"))
	w.now = w.now.Add(time.Second)
	w.settle(r)
	assert.Nil(t, w.role("till"))
	assert.Equal(t, []string{RoleName("biller")}, w.bindings())
	assert.Equal(t, "b_1", holder(w.lease("lock.x")))
	assert.Equal(t, withNext("lock.x"), w.role("biller").Rules[0].ResourceNames)

	// The Lease vanishes, but its last holder may be alive. So enroll makes the new Lease with the
	// longest duration ever claimed: 60 s, by the removed pod of the account "till".
	w.vanish("lock.x")
	w.settle(r)
	assert.Equal(t, step.Unknown, holder(w.lease("lock.x")))
	assert.EqualValues(t, 60, *w.lease("lock.x").Spec.LeaseDurationSeconds)
}

func TestLeaseRightMovesToNewAccountOfWorkload(t *testing.T) {
	d := deployment(singleton, singleton)
	w := newWorld(t, d)
	r := w.process()
	w.settle(r)
	d.Spec.Template.Spec.ServiceAccountName = "biller"
	require.NoError(t, w.server.Update(t.Context(), d))
	w.settle(r)
	w.now = w.now.Add(30 * time.Second)
	w.settle(r)
	assert.Nil(t, w.role("till"))
	assert.NotNil(t, w.role("biller"))
}

func TestAccountKeepsLeaseRightsWhileAClaimRemains(t *testing.T) {
	ending := gated("a", "till", "lock.nightly")
	ending.Finalizers = []string{"example.com/slow"}
	job := cronJob(map[string]string{api.LockAnnotation: "nightly"})
	job.Spec.JobTemplate.Spec.Template.Spec.ServiceAccountName = "till"
	for name, claimant := range map[string]client.Object{
		"pod":                  gated("a", "till", "lock.nightly"),
		"terminating pod":      ending,
		"workload without pod": job,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, claimant, gated("b", "biller", "lock.nightly"))
			r := w.process()
			w.settle(r)
			if claimant == ending {
				w.remove(ending)
			}
			for range 3 {
				w.settle(r)
				w.now = w.now.Add(time.Hour)
			}
			assert.Equal(t, withNext("lock.nightly"), w.role("till").Rules[0].ResourceNames)
		})
	}
}

func TestPodMissingFromCacheKeepsItsLeaseRights(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"), cronJobOf("biller", "x"))
	r := w.process()
	w.settle(r)
	hidePods(w, r)
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	w.settle(r)
	assert.NotNil(t, w.role("till"))
}

func cronJobOf(account, lock string) client.Object {
	job := cronJob(map[string]string{api.LockAnnotation: lock})
	job.Spec.JobTemplate.Spec.Template.Spec.ServiceAccountName = account
	return job
}

// In each iteration, the process crashes at a different write of the withdrawal. The world checks
// that enroll never removes the holder from a Lease that a Role has named.
func TestCrashWhileRevokingRightsNeverFreesHeldLeases(t *testing.T) {
	for crash := 1; crash <= 4; crash++ {
		t.Run(strconv.Itoa(crash), func(t *testing.T) {
			before := lasting(gated("a", "till", "lock.x"), "60s")
			w := newWorld(t, before, gated("b", "biller", "lock.x"))
			r := w.process()
			w.settle(r)
			w.holds("lock.x", "b_1")
			w.remove(before)
			w.settle(r)
			w.now = w.now.Add(time.Hour)
			w.crashFrom(crash)
			_, _ = r.Namespace(t.Context(), shop)
			w.before = nil
			w.vanish("lock.x")
			next := w.process()
			w.settle(next)
			assert.EqualValues(t, 60, *w.lease("lock.x").Spec.LeaseDurationSeconds)
			w.now = w.now.Add(time.Hour)
			w.settle(next)
			assert.Nil(t, w.role("till"))
			assert.Equal(t, []string{RoleName("biller")}, w.bindings())
		})
	}
}

// A claimant without a Role must not cause the loss of the last Role that remembers the
// Lease.
func TestRoleOutlivesClaimUntilNewClaimantHasRole(t *testing.T) {
	theirs := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: RoleName("biller")}}
	before := gated("a", "till", "lock.x")
	w := newWorld(t, before, theirs)
	r := w.process()
	w.settle(r)
	w.holds("lock.x", "a_1")
	w.remove(before)
	w.create(gated("b", "biller", "lock.x"))
	_, err := r.Namespace(t.Context(), shop)
	require.ErrorIs(t, err, ErrForeign)
	w.now = w.now.Add(time.Hour)
	_, err = r.Namespace(t.Context(), shop)
	require.ErrorIs(t, err, ErrForeign)
	assert.NotNil(t, w.role("till"))
}

func TestRolesRememberLongestLeaseDurationDespiteFailedUpdates(t *testing.T) {
	before := gated("a", "till", "lock.x")
	w := newWorld(t, before, gated("b", "biller", "lock.x"))
	r := w.process()
	w.settle(r)
	w.holds("lock.x", "a_1")
	long := w.role("till")
	long.Annotations[leasesAnnotation] = strings.Replace(long.Annotations[leasesAnnotation], "30", "90", 1)
	require.NoError(t, w.server.Update(t.Context(), long))
	w.remove(before)
	// Every write of the other account's Role fails.
	r.Client = interceptor.NewClient(r.Client.(client.WithWatch), interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.UpdateOption) error {
			if object.GetName() == RoleName("biller") {
				return errCrash
			}
			return c.Update(ctx, object, options...)
		},
	})
	for range 2 {
		_, err := r.Namespace(t.Context(), shop)
		require.ErrorIs(t, err, errCrash)
		w.now = w.now.Add(time.Hour)
	}
	assert.EqualValues(t, 90, remembered(w.role("till"))["lock.x"].Seconds)
}

// Earlier versions of enroll gave Roles other names. The present version uses the lease
// durations that these Roles remember, and deletes the Roles once its own Roles name the same
// Leases.
func TestRoleFromAnOldWebhookVersionIsReplaced(t *testing.T) {
	w := newWorld(t, lasting(gated("a", "till", "lock.x"), "60s"))
	earlier := w.process()
	w.settle(earlier)
	w.holds("lock.x", "a_1")
	role := w.role("till")
	w.remove(role)
	w.remove(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: role.Name}})
	old := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
		Namespace: shop, Name: "metaparticle-till", Labels: role.Labels, Annotations: role.Annotations,
	}, Rules: role.Rules}
	w.create(old)
	w.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: old.Name, Labels: role.Labels},
		RoleRef:    roleRef(old.Name), Subjects: []rbacv1.Subject{subject(shop, "till")},
	})

	r := w.process()
	w.settle(r)
	assert.Equal(t, "a_1", holder(w.lease("lock.x")))
	assert.ElementsMatch(t, []string{"metaparticle-till", RoleName("till")}, w.bindings())
	w.now = w.now.Add(60 * time.Second)
	w.settle(r)
	assert.Equal(t, []string{RoleName("till")}, w.bindings())
	w.vanish("lock.x")
	w.settle(r)
	assert.Equal(t, step.Unknown, holder(w.lease("lock.x")))
	assert.EqualValues(t, 60, *w.lease("lock.x").Spec.LeaseDurationSeconds)
}

func TestBindingWithoutItsRoleIsDeleted(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	w.settle(w.process())
	labels := map[string]string{api.ManagedLabel: managed}
	for name, ref := range map[string]rbacv1.RoleRef{
		RoleName("gone"): roleRef(RoleName("gone")),
		"theirs":         {APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
	} {
		w.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name, Labels: labels}, RoleRef: ref})
	}
	w.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "unlabelled"}, RoleRef: roleRef("gone")})
	w.settle(w.process())
	assert.ElementsMatch(t, []string{RoleName("till"), "theirs", "unlabelled"}, w.bindings())
}

func TestEnrollRestoresLostOrChangedRoleBinding(t *testing.T) {
	key := client.ObjectKey{Namespace: shop, Name: RoleName("till")}
	for name, spoil := range map[string]func(*world, *rbacv1.RoleBinding){
		"deleted": func(w *world, b *rbacv1.RoleBinding) { w.remove(b) },
		"bound to another account": func(w *world, b *rbacv1.RoleBinding) {
			b.Subjects[0].Name = "thief"
			require.NoError(w.t, w.server.Update(w.t.Context(), b))
		},
		"bound to another namespace": func(w *world, b *rbacv1.RoleBinding) {
			b.Subjects[0].Namespace = "elsewhere"
			require.NoError(w.t, w.server.Update(w.t.Context(), b))
		},
		"bound to another role": func(w *world, b *rbacv1.RoleBinding) {
			b.RoleRef.Kind = "ClusterRole"
			require.NoError(w.t, w.server.Update(w.t.Context(), b))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, gated("a", "till", "lock.x"))
			r := w.process()
			w.settle(r)
			b := new(rbacv1.RoleBinding)
			require.NoError(t, w.server.Get(t.Context(), key, b))
			want := *b.DeepCopy()
			spoil(w, b)
			w.settle(r)
			b = new(rbacv1.RoleBinding)
			require.NoError(t, w.server.Get(t.Context(), key, b))
			assert.Equal(t, want.Subjects, b.Subjects)
			assert.Equal(t, want.RoleRef, b.RoleRef)
		})
	}
}

// locks returns the annotation for the slots of n locks.
func locks(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = longLock(i)
	}
	return strings.Join(names, ",")
}

// longLock returns a slot with the longest name that a Lease may have.
func longLock(i int) string {
	name := strconv.Itoa(i)
	return "lock." + strings.Repeat("x", 253-len("lock.")-len(name)) + name
}

func TestNamesOfRolesAreShortAndDiffer(t *testing.T) {
	long := strings.Repeat("a", 253)
	maxKey := len(step.RoleKey(long))
	accounts := []string{
		"default", "pull-secrets", "1", "default.1", long, long[:252] + "b",
		long[:maxKey], long[:maxKey+1], long[:maxKey+2],
		// These accounts are named like the shortened form of another account's name.
		strings.ReplaceAll(step.RoleKey(long), ":", "-"), strings.ReplaceAll(step.RoleKey(long), ":", "."),
	}
	names := map[string]bool{PullSecretsRole: true}
	for _, account := range accounts {
		for n := range step.MaxRolesPerAccount {
			name := step.RoleName(account, n)
			assert.False(t, names[name], name)
			assert.LessOrEqual(t, len(name), 253)
			assert.Empty(t, content.IsPathSegmentName(name), "the API server rejects the Role's name")
			assert.NotEmpty(t, validation.NameIsDNSSubdomain(name, false), "a service account could have that name")
			assert.Equal(t, step.RoleKey(account), step.KeyOf(name))
			names[name] = true
		}
	}
	assert.Equal(t, "metaparticle:default", RoleName("default"))
	assert.Empty(t, step.KeyOf("metaparticle-default"), "a name of an earlier version")
}

func TestNoRoleNameCollidesWithPullSecretsRole(t *testing.T) {
	for _, account := range []string{"pull-secrets", "metaparticle-pull-secrets", "secrets"} {
		t.Run(account, func(t *testing.T) {
			w := newWorld(t, gated("a", account, "lock.x"))
			r := w.process()
			r.PullSecrets = types.NamespacedName{Namespace: "system", Name: "webhook"}
			w.settle(r)
			assert.ElementsMatch(t, []string{RoleName(account), PullSecretsRole}, w.bindings())
			binding := new(rbacv1.RoleBinding)
			key := types.NamespacedName{Namespace: shop, Name: PullSecretsRole}
			require.NoError(t, w.server.Get(t.Context(), key, binding))
			assert.Equal(t, "ClusterRole", binding.RoleRef.Kind)
		})
	}
}

// A new Lease must block the slot for as long as a holder of the old Lease may run. So enroll must
// use the same default duration as the agent.
func TestClaimWithoutDurationGetsDefaultOfItsKind(t *testing.T) {
	for _, a := range api.Annotations {
		if a.Kind == nil {
			continue
		}
		request, err := api.Parse(map[string]string{a.Key: a.Examples[0]})
		require.NoError(t, err)
		for _, slot := range request.Slots(api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}) {
			c := newClaims()
			c.addPod(gated("a", "till", slot), true)
			require.Contains(t, c.Claims, slot)
			assert.Equal(t, request.Duration(), c.Claims[slot].Duration, slot)
		}
	}
}
