// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// waiting returns an injected pod that waits for conditions and claims nothing.
func waiting(name, account string, leases ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: shop, Name: name, Labels: map[string]string{api.GatedLabel: api.GatedAfter},
		Annotations: map[string]string{api.AfterAnnotation: strings.Join(leases, ",")},
	}}
	pod.Spec.ServiceAccountName = account
	return after(pod, leases...)
}

// after adds an init container to the pod. The container waits for conditions. Each condition on a
// once claim has the key 7.
func after(pod *corev1.Pod, leases ...string) *corev1.Pod {
	var args api.ConditionArgs
	for _, lease := range leases {
		c := api.Condition{Lease: lease}
		if strings.HasPrefix(lease, "once.") {
			c.Key = "7"
		}
		args.Conditions = append(args.Conditions, c)
	}
	args.Credentials = api.CredentialsPath
	pod.Spec.InitContainers = append([]corev1.Container{{Name: api.AfterContainer, Args: args.Args()}}, pod.Spec.InitContainers...)
	return pod
}

// conditionRole returns the Role by which the account reads the Leases of conditions, or nil.
func (w *world) conditionRole(account string) *rbacv1.Role {
	w.t.Helper()
	return w.roleNamed(ConditionRoleName(account))
}

// boundAccounts returns the subjects of a RoleBinding.
func (w *world) boundAccounts(name string) []rbacv1.Subject {
	w.t.Helper()
	var b rbacv1.RoleBinding
	require.NoError(w.t, w.server.Get(w.t.Context(), types.NamespacedName{Namespace: shop, Name: name}, &b))
	assert.Equal(w.t, roleRef(name), b.RoleRef)
	return b.Subjects
}

// readable returns the Leases that the account may read for its conditions.
func (w *world) readable(account string) []string {
	w.t.Helper()
	role := w.conditionRole(account)
	if role == nil {
		return nil
	}
	return role.Rules[0].ResourceNames
}

func TestPodWithConditionsMayOnlyReadAwaitedLeases(t *testing.T) {
	for name, pod := range map[string]*corev1.Pod{
		"of an account":          waiting("a", "till", "once.schema", "lock.a", "singleton.deployment.db"),
		"of the default account": waiting("a", "", "once.schema", "lock.a", "singleton.deployment.db"),
	} {
		t.Run(name, func(t *testing.T) {
			account := pod.Spec.ServiceAccountName
			if account == "" {
				account = "default"
			}
			w := newWorld(t, pod)
			w.settle(w.process())
			role := w.conditionRole(account)
			require.NotNil(t, role)
			assert.Equal(t, "metaparticle-after:"+account, role.Name)
			assert.Equal(t, map[string]string{api.ManagedLabel: managed}, role.Labels)
			assert.Equal(t, []rbacv1.PolicyRule{
				{
					APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "watch"},
					ResourceNames: []string{"lock.a", "once.schema", "singleton.deployment.db"},
				},
				{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create"}},
				{APIGroups: []string{"metaparticle.io"}, Resources: []string{"waiters"}, Verbs: []string{"be"}},
			}, role.Rules)
			assert.Equal(t, []string{role.Name}, w.bindings())
			assert.Equal(t, []rbacv1.Subject{subject(shop, account)}, w.boundAccounts(role.Name))
			assert.Len(t, w.roles(), 1, "the pod claims nothing")
		})
	}
}

func TestConditionsOfOneAccountShareOneRole(t *testing.T) {
	w := newWorld(t, waiting("a", "till", "lock.b"), waiting("b", "till", "lock.a", "lock.b"), waiting("c", "biller", "lock.c"))
	r := w.process()
	w.settle(r)
	assert.Equal(t, []string{"lock.a", "lock.b"}, w.readable("till"))
	assert.Equal(t, []string{"lock.c"}, w.readable("biller"))
	assert.Equal(t, map[string]int{"create Role": 2, "create RoleBinding": 2}, w.requests)

	clear(w.requests)
	w.create(waiting("d", "till", "lock.d"))
	w.remove(waiting("a", "till"))
	w.settle(r)
	assert.Equal(t, []string{"lock.a", "lock.b", "lock.d"}, w.readable("till"))
	assert.Equal(t, map[string]int{"update Role": 1}, w.requests)
}

func TestEnrollSendsNoRequestForUnchangedConditions(t *testing.T) {
	w := newWorld(t, waiting("a", "till", "lock.a"), after(gated("b", "till", "lock.x"), "once.schema"), cronJob(map[string]string{api.AfterAnnotation: "lock.a"}))
	r := w.process()
	w.settle(r)
	clear(w.requests)
	w.settle(r)
	w.settle(w.process())
	assert.Empty(t, w.requests)
}

func TestRightToReadConditionsEndsWithLastPod(t *testing.T) {
	for name, end := range map[string]func(*world, *corev1.Pod){
		"deleted": func(w *world, pod *corev1.Pod) { w.remove(pod) },
		"succeeded": func(w *world, pod *corev1.Pod) {
			pod.Status.Phase = corev1.PodSucceeded
			require.NoError(w.t, w.server.Status().Update(w.t.Context(), pod))
		},
	} {
		t.Run(name, func(t *testing.T) {
			first, last := waiting("a", "till", "lock.a"), waiting("b", "till", "lock.b")
			w := newWorld(t, first, last)
			r := w.process()
			w.settle(r)
			end(w, first)
			w.settle(r)
			assert.Equal(t, []string{"lock.b"}, w.readable("till"))
			end(w, last)
			clear(w.requests)
			w.settle(r)
			assert.Nil(t, w.conditionRole("till"))
			assert.Empty(t, w.bindings())
			assert.Equal(t, map[string]int{"delete RoleBinding": 1, "delete Role": 1}, w.requests)
		})
	}
}

// In each iteration, the process crashes at a different write.
func TestEnrollResumesWithdrawalOfRightsAfterACrash(t *testing.T) {
	for crash := 1; crash <= 2; crash++ {
		pod := waiting("a", "till", "lock.a")
		w := newWorld(t, pod)
		r := w.process()
		w.settle(r)
		w.remove(pod)
		w.crashFrom(crash)
		_, err := r.Namespace(t.Context(), shop)
		require.ErrorIs(t, err, errCrash)
		assert.NotNil(t, w.conditionRole("till"), "the RoleBinding goes before the Role")
		w.before = nil
		w.settle(w.process())
		assert.Nil(t, w.conditionRole("till"), "write %d", crash)
		assert.Empty(t, w.bindings(), "write %d", crash)
	}
}

func TestConditionsOfAScaledDownWorkloadStayReadable(t *testing.T) {
	conditions := map[string]string{api.AfterAnnotation: "lock.a,once.schema=7"}
	stopped := deployment(conditions, nil)
	stopped.Spec.Replicas = new(int32(0))
	mistaken := deployment(map[string]string{api.AfterAnnotation: "kube-scheduler"}, nil)
	of := func(object client.Object) client.Object {
		object.SetNamespace(shop)
		object.SetName("biller")
		template(object).Spec.ServiceAccountName = "till"
		template(object).Annotations = conditions
		return object
	}
	for name, test := range map[string]struct {
		workload client.Object
		optedOut bool
		readable []string
	}{
		"Deployment":               {stopped, false, []string{"lock.a", "once.schema"}},
		"StatefulSet":              {of(new(appsv1.StatefulSet)), false, []string{"lock.a", "once.schema"}},
		"DaemonSet":                {of(new(appsv1.DaemonSet)), false, []string{"lock.a", "once.schema"}},
		"CronJob":                  {of(new(batchv1.CronJob)), false, []string{"lock.a", "once.schema"}},
		"with a mistake":           {mistaken, false, nil},
		"in an ordinary namespace": {stopped.DeepCopy(), true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.workload)
			if test.optedOut {
				w.optOut()
			}
			w.settle(w.process())
			assert.Equal(t, test.readable, w.readable("till"))
			assert.Nil(t, w.role("till"), "a condition is no claim")
			assert.Empty(t, w.events, "a workload that only waits needs no gate")
		})
	}
}

// Users can change the labels and annotations of living pods, but not the containers.
func TestConditionWithoutInitContainerGivesNoLeaseRights(t *testing.T) {
	forged := waiting("a", "till", "lock.a")
	forged.Spec.InitContainers = nil
	sidecar := waiting("a", "till", "lock.a")
	sidecar.Spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	unlabelled := waiting("a", "till", "lock.a")
	unlabelled.Labels[api.GatedLabel] = "false"
	for name, test := range map[string]struct {
		pod      *corev1.Pod
		readable []string
	}{
		"marks alone":             {forged, nil},
		"a sidecar of that name":  {sidecar, nil},
		"another label":           {unlabelled, nil},
		"only conditions":         {waiting("a", "till", "lock.a"), []string{"lock.a"}},
		"a claim, and conditions": {after(gated("a", "till", "lock.x"), "lock.a"), []string{"lock.a"}},
	} {
		for _, optedOut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, opted out %v", name, optedOut), func(t *testing.T) {
				w := newWorld(t, test.pod.DeepCopy())
				if optedOut {
					w.optOut()
				}
				w.settle(w.process())
				assert.Equal(t, test.readable, w.readable("till"))
			})
		}
	}
}

func TestConditionsGiveNoRightsInSystemNamespaces(t *testing.T) {
	for _, name := range []string{metav1.NamespaceSystem, "metaparticle-system"} {
		pod := waiting("a", "till", "lock.a")
		pod.Namespace = name
		w := newWorld(t, pod, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled},
		}})
		r := w.process()
		r.Home = "metaparticle-system"
		_, err := r.Namespace(t.Context(), name)
		require.NoError(t, err)
		assert.Zero(t, w.writes, name)
	}
}

func TestConditionLetsPodReadOnlyLeasesOfSlots(t *testing.T) {
	for _, lease := range []string{"kube-scheduler", "metaparticle-enroll", "singletons", "lock", "*", "next.lock.x"} {
		w := newWorld(t, waiting("a", "till", lease))
		w.settle(w.process())
		assert.Zero(t, w.writes, lease)

		assert.Equal(t, []string{"lock.a"}, leasesOf([]api.Condition{{Lease: lease}, {Lease: "lock.a"}}), lease)
	}
}

func TestEnrollNeverMakesOrKeepsLeasesForConditions(t *testing.T) {
	holder := gated("a", "till", "lock.a")
	w := newWorld(t, waiting("b", "biller", "lock.a", "lock.missing"), holder)
	r := w.process()
	w.settle(r)
	assert.Nil(t, w.lease("lock.missing"))
	w.holds("lock.a", "a_1")
	w.remove(holder)
	assert.Equal(t, 30*time.Second, w.settle(r))
	w.now = w.now.Add(30 * time.Second)
	assert.Zero(t, w.settle(r))
	assert.Nil(t, w.lease("lock.a"), "enroll sweeps a Lease that only a condition names")
	assert.Nil(t, w.role("till"))
	assert.Equal(t, []string{"lock.a", "lock.missing"}, w.readable("biller"))
}

// A Role for conditions gives no right to write a Lease. If only such Roles ever named a
// Lease, no agent can have held the Lease. So enroll frees the Lease just after creating it.
func TestNewLeaseIsFreeDespiteRoleForConditions(t *testing.T) {
	w := newWorld(t, waiting("a", "till", "lock.a"))
	r := w.process()
	w.settle(r)
	w.create(gated("b", "biller", "lock.a"))
	w.settle(r)
	assert.Empty(t, holder(w.lease("lock.a")))
	assert.EqualValues(t, 30, *w.lease("lock.a").Spec.LeaseDurationSeconds)
}

func TestAccountGetsRolesForSlotsAndForConditions(t *testing.T) {
	pod := after(gated("a", "till", "lock.x"), "lock.a")
	w := newWorld(t, pod)
	r := w.process()
	w.settle(r)
	assert.Equal(t, AgentRules(withNext("lock.x")...), w.role("till").Rules)
	assert.Equal(t, ConditionRules("lock.a"), w.conditionRole("till").Rules)
	assert.ElementsMatch(t, []string{RoleName("till"), ConditionRoleName("till")}, w.bindings())
	assert.Nil(t, w.lease("lock.a"))

	w.remove(pod)
	w.settle(r)
	assert.Nil(t, w.conditionRole("till"))
	assert.NotNil(t, w.role("till"), "the right of an agent ends after a lease duration")
	w.now = w.now.Add(30 * time.Second)
	w.settle(r)
	assert.Empty(t, w.roles())
	assert.Empty(t, w.bindings())
}

// A pod that only waits for conditions has the label api.GatedLabel. So enroll does not report
// it as a pod without a gate.
func TestEnrollNeverWarnsOfPodWithOnlyConditions(t *testing.T) {
	pod := waiting("a", "till", "lock.a")
	pod.Labels["app"] = "biller"
	w := newWorld(t, deployment(singleton, singleton), pod)
	w.settle(w.process())
	assert.Empty(t, w.events)
}
