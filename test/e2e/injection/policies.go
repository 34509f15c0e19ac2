// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// said collects the API server's warnings.
type said struct {
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeader implements [rest.WarningHandler].
func (s *said) HandleWarningHeader(_ int, _, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts = append(s.texts, text)
}

// taken returns the warnings since the previous call of taken.
func (s *said) taken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.texts = nil }()
	return strings.Join(s.texts, "\n")
}

// keepWebhookOut changes the webhook's configuration, so that the API server calls the
// webhook for nothing in this namespace until the test ends.
func keepWebhookOut(s *space.Space) {
	s.Helper()
	configurations := cluster.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	out := metav1.LabelSelectorRequirement{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: []string{s.Namespace}}
	change := func(of func([]metav1.LabelSelectorRequirement) []metav1.LabelSelectorRequirement) error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			ours, err := configurations.Get(context.Background(), webhook.Configuration, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for i := range ours.Webhooks {
				selector := ours.Webhooks[i].NamespaceSelector
				selector.MatchExpressions = of(selector.MatchExpressions)
			}
			_, err = configurations.Update(context.Background(), ours, metav1.UpdateOptions{})
			return err
		})
	}
	s.Cleanup(func() {
		assert.NoError(s, change(func(all []metav1.LabelSelectorRequirement) []metav1.LabelSelectorRequirement {
			return slices.DeleteFunc(all, func(r metav1.LabelSelectorRequirement) bool { return slices.Equal(r.Values, out.Values) })
		}))
	})
	require.NoError(s, change(func(all []metav1.LabelSelectorRequirement) []metav1.LabelSelectorRequirement { return append(all, out) }))
	s.Await(space.StartTimeout, "the webhook sees nothing", func() bool {
		_, err := webhook.Try(s, app.Bare(s, "claims", webhook.Claims))
		return err != nil && strings.Contains(err.Error(), "NotInjected: ")
	})
}

// ruled has a namespace in which the policies alone judge, without the webhook. The pods are those that
// the webhook has gated before; "made" exists, and no scheduler sees it.
type ruled struct {
	*space.Space
	warnings                    *said
	locked, later, train, asker *corev1.Pod
	made                        *corev1.Pod
}

// rule returns a namespace of policies.
func rule(t *testing.T) ruled {
	t.Helper()
	r := ruled{Space: space.New(t), warnings: new(said)}
	r.locked = webhook.Gated(r.Space, app.Bare(r.Space, "locked", map[string]string{api.LockAnnotation: "a"}))
	r.later = webhook.Gated(r.Space, app.Bare(r.Space, "later", map[string]string{api.AfterAnnotation: "lock.a"}))
	r.asker = webhook.Gated(r.Space, app.Bare(r.Space, "asker", map[string]string{api.LocalAnnotation: "lock/a"}))
	train := app.Bare(r.Space, "train", map[string]string{api.BarrierAnnotation: "warm=3"})
	train.Spec.RestartPolicy, train.OwnerReferences = corev1.RestartPolicyNever, []metav1.OwnerReference{suspended(r.Space, "train")}
	r.train = webhook.Gated(r.Space, train)
	alone := app.Bare(r.Space, "alone", webhook.Claims)
	alone.Spec.SchedulerName = "none"
	var err error
	r.made, err = r.Client.CoreV1().Pods(r.Namespace).Create(t.Context(), alone, metav1.CreateOptions{})
	require.NoError(t, err)
	held, free := r.lease("lock.held"), r.lease("lock.free")
	free.Spec.HolderIdentity = nil
	for _, l := range []*coordinationv1.Lease{held, free} {
		_, err := r.Client.CoordinationV1().Leases(r.Namespace).Create(t.Context(), l, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	keepWebhookOut(r.Space)
	config := rest.CopyConfig(cluster.Config)
	config.WarningHandler = r.warnings
	r.Client, err = kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return r
}

// suspended creates a Job for three pods. The Job is suspended, so no pod exists yet. The result is
// an owner reference that names the Job.
func suspended(s *space.Space, name string) metav1.OwnerReference {
	s.Helper()
	a := app.App{Name: name}
	spec := app.Job(s, a).Spec
	spec.Suspend, spec.Parallelism, spec.Completions = new(true), new(int32(3)), new(int32(3))
	job, err := s.Client.BatchV1().Jobs(s.Namespace).Create(s.Context(), &batchv1.Job{ObjectMeta: app.Meta(s, a), Spec: spec}, metav1.CreateOptions{})
	require.NoError(s, err)
	return *metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))
}

// lease returns a held Lease of enroll.
func (r ruled) lease(name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{api.ManagedLabel: "true"}, Annotations: map[string]string{}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("ghost_1"), LeaseDurationSeconds: new(int32(30)), RenewTime: new(metav1.NowMicro())},
	}
}

// proposes returns a request that creates a pod by dry run, in the namespace of the policies if the pod
// names none.
func (r ruled) proposes(pod *corev1.Pod) func() error {
	return func() error {
		if pod.Namespace == "" {
			pod.Namespace = r.Namespace
		}
		_, err := r.Client.CoreV1().Pods(pod.Namespace).Create(r.Context(), pod, metav1.CreateOptions{DryRun: webhook.DryRun})
		return err
	}
}

// claims returns a pod that nobody has gated.
func (r ruled) claims(annotation, value string) *corev1.Pod {
	return app.Bare(r.Space, "bare", map[string]string{annotation: value})
}

// patches returns a request that replaces a part of the pod "made" by dry run.
func (r ruled) patches(op, path string, value any, subresource ...string) func() error {
	return func() error {
		patch, err := json.Marshal([]map[string]any{{"op": op, "path": path, "value": value}})
		require.NoError(r, err)
		_, err = r.Client.CoreV1().Pods(r.Namespace).Patch(r.Context(), r.made.Name, types.JSONPatchType, patch, metav1.PatchOptions{DryRun: webhook.DryRun}, subresource...)
		return err
	}
}

// debugs returns a request that adds an ephemeral container to the pod "made" by dry run.
func (r ruled) debugs(target string) func() error {
	return r.patches("add", "/spec/ephemeralContainers", []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: cluster.Image}, TargetContainerName: target,
	}}, "ephemeralcontainers")
}

// binds returns a request that binds the pod "made" to a node by dry run.
func (r ruled) binds(annotations map[string]string) func() error {
	return func() error {
		return r.Client.CoreV1().Pods(r.Namespace).Bind(r.Context(), &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: r.made.Name, Annotations: annotations}, Target: corev1.ObjectReference{Kind: "Node", Name: "node"},
		}, metav1.CreateOptions{DryRun: webhook.DryRun})
	}
}

// leases returns a request that creates a Lease by dry run, after an edit.
func (r ruled) leases(edit func(*coordinationv1.Lease)) func() error {
	return func() error {
		l := r.lease("lock.new")
		edit(l)
		_, err := r.Client.CoordinationV1().Leases(r.Namespace).Create(r.Context(), l, metav1.CreateOptions{DryRun: webhook.DryRun})
		return err
	}
}

// holds returns a request that annotates the Lease "lock.held" by dry run.
func (r ruled) holds(key string) func() error {
	return func() error {
		_, err := r.Client.CoordinationV1().Leases(r.Namespace).Patch(r.Context(), "lock.held", types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"`+key+`":"a"}}}`), metav1.PatchOptions{DryRun: webhook.DryRun})
		return err
	}
}

// deletes returns a request that deletes a Lease by dry run.
func (r ruled) deletes(name string) func() error {
	return func() error {
		return r.Client.CoordinationV1().Leases(r.Namespace).Delete(r.Context(), name, metav1.DeleteOptions{DryRun: webhook.DryRun})
	}
}

// deploys returns a request that creates a Deployment by dry run.
func (r ruled) deploys(template map[string]string) func() error {
	return func() error {
		a := app.Singleton("deployed")
		a.Template = template
		_, err := r.Client.AppsV1().Deployments(r.Namespace).Create(r.Context(), app.Deployment(r.Space, a), metav1.CreateOptions{DryRun: webhook.DryRun})
		return err
	}
}

// opensIn returns a request that creates a namespace by dry run.
func (r ruled) opensIn(label string) func() error {
	return func() error {
		of := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-", Labels: map[string]string{api.InjectionLabel: label}}}
		_, err := r.Client.CoreV1().Namespaces().Create(r.Context(), of, metav1.CreateOptions{DryRun: webhook.DryRun})
		return err
	}
}

// keeps returns a request that creates a ConfigMap by dry run.
func (r ruled) keeps(annotations map[string]string) func() error {
	return func() error {
		of := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept", Annotations: annotations}}
		_, err := r.Client.CoreV1().ConfigMaps(r.Namespace).Create(r.Context(), of, metav1.CreateOptions{DryRun: webhook.DryRun})
		return err
	}
}

// verdict has two requests, and the reason of the policy that refuses the second, or that warns.
type verdict struct {
	admitted, refused func() error
	reason            string
}

// verdicts returns requests for each policy that judges other users than agents and the webhook.
func (r ruled) verdicts() map[string]verdict {
	anonymous := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "copy", Namespace: metav1.NamespaceDefault}, Spec: r.locked.Spec}
	marked := app.Bare(r.Space, "marked", map[string]string{api.SlotsAnnotation: "lock.a"})
	misspelt := app.Bare(r.Space, "misspelt", map[string]string{"metaparticle.oi/singleton": "true"})
	return map[string]verdict{
		"metaparticle-gate":                  {r.proposes(r.locked), r.proposes(r.claims(api.LockAnnotation, "a")), "NotInjected: the pod has metaparticle.io/lock"},
		"metaparticle-after":                 {r.proposes(r.later), r.proposes(r.claims(api.AfterAnnotation, "lock.a")), "NotInjected: the pod has metaparticle.io/after"},
		"metaparticle-barrier":               {r.proposes(r.train), r.proposes(r.claims(api.BarrierAnnotation, "warm=3")), "NotInjected: the pod has metaparticle.io/barrier"},
		"metaparticle-leftover":              {r.proposes(r.asker), r.proposes(anonymous), "Leftover: "},
		"metaparticle-marks":                 {r.patches("add", "/metadata/labels/quarantine", "true"), r.patches("replace", "/metadata/labels/metaparticle.io~1gated", "false", "status"), "MarksChanged: "},
		"metaparticle-marks, at a creation":  {r.proposes(app.Bare(r.Space, "plain", nil)), r.proposes(marked), "MarksForged: "},
		"metaparticle-binding":               {r.binds(map[string]string{"a": "b"}), r.binds(map[string]string{api.SlotsAnnotation: "lock.b"}), "MarksChanged: "},
		"metaparticle-image":                 {r.patches("add", "/metadata/annotations/a", "b"), r.patches("replace", "/spec/containers/0/image", "another:1"), "ImageChangedInPlace: "},
		"metaparticle-image, while debugged": {r.debugs("app"), r.debugs(api.AgentContainer), "InjectedContainerTargeted: "},
		"metaparticle-carried":               {r.deploys(app.Singleton("").Annotations), r.deploys(nil), "NotCarried: "},
		"metaparticle-stamp":                 {r.leases(func(*coordinationv1.Lease) {}), r.leases(func(l *coordinationv1.Lease) { l.Annotations[api.StampAnnotation] = "1/3" }), "EnrollStamps: "},
		"metaparticle-lease-duration": {
			r.leases(func(l *coordinationv1.Lease) {
				delete(l.Labels, api.ManagedLabel)
				*l.Spec.LeaseDurationSeconds = math.MaxInt32
			}),
			r.leases(func(l *coordinationv1.Lease) { *l.Spec.LeaseDurationSeconds = math.MaxInt32 }), "DurationTooLong: ",
		},
		"metaparticle-hold": {r.holds("a"), r.holds(api.HoldAnnotation), "HoldForged: "},
		"metaparticle-person": {
			r.leases(func(*coordinationv1.Lease) {}),
			r.leases(func(l *coordinationv1.Lease) {
				l.Spec.HolderIdentity = new(api.PersonIdentity("0123456789abcdef", "another"))
			}), "PersonForged: ",
		},
		"metaparticle-lease-deletion":     {r.deletes("lock.free"), r.deletes("lock.held"), "SlotHeld: "},
		"metaparticle-ineffective":        {r.proposes(app.Bare(r.Space, "plain", nil)), r.proposes(misspelt), "PrefixMisspelt: "},
		"metaparticle-ineffective-object": {r.keeps(nil), r.keeps(map[string]string{api.SingletonAnnotation: "true"}), "NoEffectHere: "},
		"metaparticle-ineffective-label":  {r.opensIn("enabled"), r.opensIn("true"), "InjectionNotEnabled: "},
	}
}

// Package test/policies evaluates the policies. This test shows that each policy is bound, and judges the
// requests of a real API server: its subresources, patches and namespaces. The tests of folder "rights"
// send the requests of agents and of the webhook.
func TestEachPolicyIsInForce(t *testing.T) {
	t.Parallel()
	r := rule(t)
	elsewhere := map[string]bool{
		"metaparticle-lease": true, "metaparticle-status": true, "metaparticle-events": true, "metaparticle-variable": true, "metaparticle-enroll": true,
	}
	for what, v := range r.verdicts() {
		policy, _, _ := strings.Cut(what, ",")
		elsewhere[policy] = true
		t.Run(what, func(t *testing.T) {
			r.warnings.taken()
			require.NoError(t, v.admitted())
			require.Empty(t, r.warnings.taken())
			err := v.refused()
			if strings.HasPrefix(policy, "metaparticle-ineffective") {
				require.NoError(t, err)
				assert.Contains(t, r.warnings.taken(), v.reason)
				return
			}
			require.True(t, apierrors.IsForbidden(err), "%v", err)
			assert.ErrorContains(t, err, "ValidatingAdmissionPolicy '"+policy+"' with binding '"+policy+"' denied request: "+v.reason)
		})
	}
	policies, err := cluster.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, policy := range policies.Items {
		assert.True(t, elsewhere[policy.Name] || !strings.HasPrefix(policy.Name, "metaparticle-"), "%s needs two requests", policy.Name)
	}
}
