// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// named returns the finding with the name, or an empty finding if the check did not apply.
func named(t *testing.T, s *scene, name string) Finding {
	t.Helper()
	all := After(t.Context(), s.cluster())
	i := slices.IndexFunc(all, func(f Finding) bool { return f.Check == name })
	if i < 0 {
		return Finding{}
	}
	return all[i]
}

func TestCheckCommandContinuesDespiteIncompleteInstallation(t *testing.T) {
	for name, c := range map[string]struct {
		remains func(s *scene)
		says    string
	}{
		"the configuration": {func(s *scene) { s.policies, s.bindings = nil, nil }, "each pod that claims is refused: deployment metaparticle-system/metaparticle-webhook is not installed, but these objects exist: mutatingwebhookconfiguration/metaparticle"},
		"the policies":      {func(s *scene) { s.webhooks = admissionv1.MutatingWebhookConfiguration{} }, "but these objects exist: validatingadmissionpolicy/metaparticle-after"},
		"a policy": {func(s *scene) {
			s.webhooks, s.policies = admissionv1.MutatingWebhookConfiguration{}, s.policies[:1]
		}, "but these objects exist: validatingadmissionpolicy/metaparticle-after"},
		"nothing that can be read": {func(s *scene) { s.forbidden = "validatingadmissionpolicys" }, "is not installed, or not completely"},
	} {
		s := healthy(t)
		s.deployment = appsv1.Deployment{}
		c.remains(s)
		f := named(t, s, "webhook")
		assert.Equal(t, Failed, f.Result, name)
		assert.Contains(t, f.Says, c.says, name)
		assert.Contains(t, f.Do, "docs/operate/", name)
		assert.NotEmpty(t, named(t, s, "admission"), "%s: the other checks follow", name)
	}
}

// replica returns a running pod of the webhook.
func replica(name, node string) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: name, Labels: map[string]string{label: "metaparticle-webhook"}}}
	p.Spec.NodeName, p.Status.Phase = node, corev1.PodRunning
	return p
}

func TestCheckCommandWarnsOfReplicasOnOneNode(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *scene)
		warns  bool
	}{
		"one node of two":   {func(*scene) {}, true},
		"two nodes":         {func(s *scene) { s.pods[1].Spec.NodeName = "node-2" }, false},
		"the only node":     {func(s *scene) { s.nodes = s.nodes[:1] }, false},
		"one replica":       {func(s *scene) { s.pods = s.pods[:1] }, false},
		"one that has none": {func(s *scene) { s.pods[1].Status.Phase = corev1.PodPending }, false},
		"other pods":        {func(s *scene) { s.pods[1].Labels = nil }, false},
		"no right on pods":  {func(s *scene) { s.forbidden = "pods" }, false},
		"no right on nodes": {func(s *scene) { s.forbidden = "nodes" }, false},
	} {
		s := healthy(t)
		second := *s.nodes[0].DeepCopy()
		second.Name = "node-2"
		s.nodes, s.pods = append(s.nodes, second), []corev1.Pod{replica("a", "node-1"), replica("b", "node-1")}
		c.change(s)
		if f := named(t, s, "replicas"); c.warns {
			assert.Equal(t, Warning, f.Result, name)
			assert.Contains(t, f.Says, "all 2 replicas run on node node-1", name)
			assert.Contains(t, f.Do, "rollout restart deployment/metaparticle-webhook", name)
		} else {
			assert.Empty(t, f, name)
		}
	}
}

func TestCheckCommandWarnsOfPausedSlots(t *testing.T) {
	target := func(slot string) string { return map[string]string{"lock.a": "lock/a"}[slot] }
	for name, c := range map[string]struct {
		change   func(l *coordinationv1.Lease)
		says, do string
	}{
		"by hold":     {func(l *coordinationv1.Lease) {}, "no pod can acquire 1 paused slot: shop/lock.a (hold)", "kubectl metaparticle resume -n shop lock/a"},
		"by stop":     {func(l *coordinationv1.Lease) { l.Annotations[api.PausedAnnotation] = "stop" }, "shop/lock.a (stop)", "kubectl metaparticle resume -n shop lock/a"},
		"by any text": {func(l *coordinationv1.Lease) { l.Annotations[api.PausedAnnotation] = "x\ny" }, "shop/lock.a (an unknown value, which counts as hold)", "kubectl metaparticle resume -n shop lock/a"},
		"by recover": {func(l *coordinationv1.Lease) { l.Annotations[api.PausedAnnotation] = "recover" },
			"shop/lock.a (recover); 1 of all 1 slots have the value recover, which a recovery gives to all slots",
			"if nobody has, a user wrote the pause: kubectl metaparticle resume -n shop lock/a"},
		"without an argument": {func(l *coordinationv1.Lease) { l.Name = "singleton.rollout.x.y" }, "shop/singleton.rollout.x.y (hold)",
			"kubectl -n shop annotate lease singleton.rollout.x.y metaparticle.io/paused-"},
		"by another program": {func(l *coordinationv1.Lease) { l.Labels = nil }, "", ""},
		"not at all":         {func(l *coordinationv1.Lease) { delete(l.Annotations, api.PausedAnnotation) }, "", ""},
	} {
		s := healthy(t)
		s.held.Annotations[api.PausedAnnotation] = "hold"
		c.change(&s.held)
		cluster := s.cluster()
		cluster.Target = target
		f, err := cluster.pauses(t.Context())
		require.NoError(t, err, name)
		assert.Contains(t, f.Says, c.says, name)
		assert.Contains(t, f.Do, c.do, name)
		assert.Equal(t, c.says == "", f.Result == "", name)
	}
	s := healthy(t)
	s.held.Annotations[api.PausedAnnotation] = "hold"
	s.namespaces[0].DeletionTimestamp, s.namespaces[0].Finalizers = &metav1.Time{Time: noon}, []string{"a/b"}
	assert.Empty(t, named(t, s, "pauses"), "the namespace is being deleted")
	s.forbidden = "namespaces"
	assert.Equal(t, Warning, named(t, s, "pauses").Result)
}

func TestCheckCommandComparesVersionsOfImagesAndPlugin(t *testing.T) {
	for _, c := range []struct {
		webhook, agent, release string
		warns                   bool
	}{
		{"r.example:5000/webhook:v1.2.3", "r.example:5000/agent:v1.2.3", "v1.2.3", false},
		{"r.example:5000/webhook:v1.2.3", "r.example:5000/agent:v1.2.3", "v1.3.0", true},
		{"r.example:5000/webhook:v1.2.3@sha256:1", "r.example:5000/agent@sha256:1", "v1.3.0", true},
		{"webhook:v1.3.0", "agent:v1.2.3", "v1.3.0", true},
		{"r.example:5000/webhook@sha256:1", "agent@sha256:1", "v1.3.0", false},
		{"webhook:latest", "agent", "v1.3.0", false},
		{"webhook:v1.2.3", "agent:v1.2.3", "", false},
	} {
		s := healthy(t)
		s.release = c.release
		container := &s.deployment.Spec.Template.Spec.Containers[0]
		container.Image, container.Env[0].Value = c.webhook, c.agent
		assert.Equal(t, c.warns, named(t, s, "version").Result == Warning, "%+v", c)
	}
	s := healthy(t)
	s.deployment = appsv1.Deployment{}
	assert.Empty(t, named(t, s, "version"))
}

func TestCheckCommandNamesLeaseWithExcessiveToken(t *testing.T) {
	s := healthy(t)
	s.held.Annotations[api.TokenAnnotation] = "400000"
	f := named(t, s, "tokens")
	assert.Contains(t, f.Says, "the Lease shop/lock.a has the token 400000 above the API server's revision 42 (such Leases: 1)")
	assert.Contains(t, f.Do, "kubectl metaparticle recover --floor 400000")
	assert.Contains(t, f.Do, "kubectl -n shop annotate lease lock.a metaparticle.io/token-")
}

func TestCheckCommandProposesHelmFlagAndCompleteLogs(t *testing.T) {
	s := healthy(t)
	s.deployment.Spec.Replicas = new(int32(1))
	assert.Contains(t, named(t, s, "webhook").Do, "--set replicas=2")
	s.elected.Spec.HolderIdentity = new("")
	assert.Equal(t, "kubectl -n metaparticle-system logs -l app.kubernetes.io/name=metaparticle-webhook --prefix --tail=-1 --since=15m", named(t, s, "enroll").Do)
}

func TestCheckCommandSkipsNamespaceWhoseQuotaIsExhausted(t *testing.T) {
	s := healthy(t)
	s.full = "shop"
	f := named(t, s, "admission")
	assert.Equal(t, Unknown, f.Result)
	assert.Contains(t, f.Says, "exceeded quota: few")
	assert.Contains(t, f.Do, "opt in a namespace that admits a small pod")
	second := *s.namespaces[0].DeepCopy()
	second.Name = "store"
	s.namespaces = append(s.namespaces, second)
	assert.Equal(t, Finding{Check: "admission", Result: OK, Says: "2 namespaces have opted in, and a pod that claims gets its gate (tried in store)"}, named(t, s, "admission"))
	denied := errors.New(`admission webhook "pods.metaparticle.io" denied the request: BadAnnotation`)
	s.admit = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "try", denied)
	f = named(t, s, "admission")
	assert.Equal(t, Failed, f.Result)
	assert.Contains(t, f.Says, "is refused in namespace store")
}

func TestCheckCommandWarnsOfClaimsWithoutOptIn(t *testing.T) {
	claiming := func(namespace string) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "biller", Annotations: map[string]string{api.LockAnnotation: "a"}}}
	}
	carried := claiming("shop")
	carried.Spec.Template.Annotations = carried.Annotations
	s := healthy(t)
	deleted := &metav1.Time{Time: noon}
	s.namespaces = append(s.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "store"}}, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: home}},
		corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ended", DeletionTimestamp: deleted, Finalizers: []string{"a/b"}}})
	s.workloads = []client.Object{carried, claiming("store"), claiming("ended"), claiming(home)}
	f := named(t, s, "claims")
	assert.Equal(t, Failed, f.Result)
	assert.Equal(t, "workloads claim, and run without a gate, because their namespace has not opted in: store/biller", f.Says)
	assert.Contains(t, f.Do, "kubectl label namespace store metaparticle.io/injection=enabled; ")

	nightly := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "nightly", Annotations: map[string]string{"metaparticle.io/singelton": "true"}}}
	operated := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "main", Annotations: map[string]string{api.SingletonAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "monitoring.example/v1", Kind: "Prometheus", Name: "main", Controller: new(true)}},
	}}
	claimed := claiming("shop")
	claimed.Name = "till"
	s.workloads = []client.Object{carried, claimed, nightly, operated, claiming("ended")}
	f = named(t, s, "claims")
	assert.Equal(t, Failed, f.Result)
	assert.Equal(t, "workloads claim, and their pods run without a gate, because their pod templates lack the claim: shop/cronjob/nightly, shop/deployment/till, shop/statefulset/main", f.Says)
	assert.Equal(t, "kubectl metaparticle explain -n shop cronjob/nightly", f.Do)
	s.workloads = []client.Object{carried}
	assert.Equal(t, OK, named(t, s, "claims").Result)
}

func TestCheckCommandWarnsOfLabelsThatOptNothingIn(t *testing.T) {
	s := healthy(t)
	for name, value := range map[string]string{"till": "true", "store": "", "vault": "disabled", "bank": "false"} {
		s.namespaces = append(s.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{api.InjectionLabel: value}}})
	}
	assert.Equal(t, Finding{
		Check: "opt-in", Result: Warning, Says: "only the value enabled of the label metaparticle.io/injection opts a namespace in: store (), till (true)",
		Do: "kubectl label --overwrite namespace store till metaparticle.io/injection=enabled",
	}, named(t, s, "opt-in"))
}

// A workload whose annotations have a mistake runs without a gate, too, where nothing is injected.
func TestCheckCommandJudgesMistakenClaimsByTheirKeys(t *testing.T) {
	const claim, settings = api.SingletonAnnotation, api.ContainersAnnotation
	for name, c := range map[string]struct {
		annotations map[string]string
		claims      bool
	}{
		"a misspelt setting":   {map[string]string{claim: "true", "metaparticle.io/lease-duraton": "30s"}, true},
		"a misspelt claim":     {map[string]string{"metaparticle.io/singelton": "true"}, true},
		"a wrong value":        {map[string]string{claim: "ture!"}, true},
		"a wrong setting":      {map[string]string{api.LeaseDurationAnnotation: "x"}, false},
		"a lone setting":       {map[string]string{settings: "app"}, false},
		"a condition":          {map[string]string{api.AfterAnnotation: "lock/a"}, true},
		"a mistaken condition": {map[string]string{api.AfterAnnotation: "?"}, true},
		"no claim":             {map[string]string{claim: "false", api.LeaseDurationAnnotation: "x"}, false},
		"an opt-out":           {map[string]string{claim: "ture!", api.InjectAnnotation: "false"}, false},
		"what programs write":  {map[string]string{api.SlotsAnnotation: "lock.a", api.LeaseDurationAnnotation: "x"}, false},
		"other keys":           {map[string]string{"example.com/a": "b", api.LeaseDurationAnnotation: "x"}, false},
	} {
		assert.Equal(t, c.claims, api.Asks(c.annotations), name)
	}
	s := healthy(t)
	for _, name := range []string{"till", "store", "vault"} {
		s.namespaces = append(s.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		s.workloads = append(s.workloads, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
			Namespace: name, Name: "biller", Annotations: map[string]string{claim: "true", "metaparticle.io/lease-duraton": "30s"},
		}})
	}
	f := named(t, s, "claims")
	assert.Equal(t, Failed, f.Result)
	assert.Contains(t, f.Says, "store/biller, till/biller, vault/biller")
	assert.Contains(t, f.Do, "kubectl label namespace store till vault metaparticle.io/injection=enabled; ")
}

func TestCheckCommandNamesSlotsThatLackLeaseOrRights(t *testing.T) {
	scene := func(slot string) *scene {
		s := healthy(t)
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "shop-1", CreationTimestamp: metav1.NewTime(noon.Add(-time.Minute)),
			Labels: map[string]string{api.GatedLabel: api.Gated}, Annotations: map[string]string{api.SlotsAnnotation: slot},
		}}
		pod.Spec.InitContainers = []corev1.Container{{Name: api.AgentContainer, Image: "agent@sha256:1"}}
		s.pods = []corev1.Pod{pod}
		return s
	}
	managed := metav1.ObjectMeta{Namespace: "shop", Name: "metaparticle:default", Labels: map[string]string{api.ManagedLabel: "true"}}
	role := &rbacv1.Role{ObjectMeta: managed, Rules: []rbacv1.PolicyRule{{ResourceNames: []string{"lock.a"}, Verbs: []string{"get", "update"}}}}
	binding := &rbacv1.RoleBinding{ObjectMeta: managed, RoleRef: rbacv1.RoleRef{Name: managed.Name}}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "q"}}
	quota.Status.Hard = corev1.ResourceList{"count/leases.coordination.k8s.io": resource.MustParse("0"), "count/roles.rbac.authorization.k8s.io": resource.MustParse("1")}
	quota.Status.Used = corev1.ResourceList{"count/leases.coordination.k8s.io": resource.MustParse("0")}

	s := scene("singleton.deployment.shop")
	s.workloads = []client.Object{role, binding, quota}
	f := named(t, s, "slots")
	assert.Equal(t, Failed, f.Result)
	assert.Equal(t, "pods wait for slots without a Lease or rights: shop/singleton.deployment.shop; exhausted quotas: shop/q (count/leases.coordination.k8s.io)", f.Says)
	assert.Contains(t, f.Do, "EnrollRefused")

	s = scene("lock.a")
	s.workloads = []client.Object{role}
	assert.Equal(t, "pods wait for slots without a Lease or rights: shop/lock.a", named(t, s, "slots").Says, "the Role is not bound")
	s.forbidden = "roles"
	assert.NotContains(t, names(After(t.Context(), s.cluster())), "slots", "only the Lease can be read")

	s = scene("lock.a")
	s.workloads = []client.Object{role, binding}
	assert.NotContains(t, names(After(t.Context(), s.cluster())), "slots")
	s = scene("lock.new")
	s.pods[0].CreationTimestamp.Time = noon
	assert.NotContains(t, names(After(t.Context(), s.cluster())), "slots", "enroll has not had its time yet")
}

func TestCheckCommandNamesSilentAgents(t *testing.T) {
	s := healthy(t)
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop-1", Labels: map[string]string{api.GatedLabel: api.Gated}}}
	pod.Spec.InitContainers = []corev1.Container{{Name: api.AgentContainer, Image: "agent@sha256:1", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}}
	pod.Spec.Containers = []corev1.Container{{Name: "app", Command: []string{api.ShimProgram, api.ExecRole}}}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
		Name: api.AgentContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(noon.Add(-time.Minute))}},
	}}
	s.pods = []corev1.Pod{pod}
	f := named(t, s, "agents")
	assert.Equal(t, Failed, f.Result)
	assert.Equal(t, "AgentSilent: The agent of a pod has run for 30 s without a word to the API server, so the application waits. "+
		"Often a NetworkPolicy forbids egress to the API server, or a proxy or mesh is in between: shop/shop-1", f.Says)
	assert.True(t, strings.HasSuffix(f.Do, ": kubectl -n shop logs shop-1 -c metaparticle-agent"), f.Do)
	assert.Contains(t, f.Do, "reasons.md#agentsilent")
	s.pods[0].Status.Conditions = []corev1.PodCondition{{Type: api.ReadyCondition}}
	assert.NotContains(t, names(After(t.Context(), s.cluster())), "agents")
}

// names returns the names of the checks with a finding.
func names(findings []Finding) (all []string) {
	for _, f := range findings {
		all = append(all, f.Check)
	}
	return all
}

func TestQuotaNameNeverLooksLikeOurRefusal(t *testing.T) {
	refused := func(text string) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "metaparticle-try-x", errors.New(text))
	}
	for _, elsewhere := range []string{"exceeded quota: x.metaparticle.io, requested: pods=1", "exceeded quota: metaparticle-gate, requested: pods=1"} {
		assert.True(t, refusedElsewhere(refused(elsewhere)), elsewhere)
	}
	for _, ours := range []string{
		`admission webhook "pods.metaparticle.io" denied the request: BadAnnotation`,
		"ValidatingAdmissionPolicy 'metaparticle-gate' with binding 'metaparticle-gate' denied request: NotInjected",
	} {
		assert.False(t, refusedElsewhere(refused(ours)), ours)
	}
}

// intercepting returns the configuration of a foreign webhook that the API server calls for each update.
func intercepting() *admissionv1.ValidatingWebhookConfiguration {
	w := admissionv1.ValidatingWebhook{Name: "all.guard.example", FailurePolicy: new(admissionv1.Fail)}
	w.Rules = []admissionv1.RuleWithOperations{{
		Operations: []admissionv1.OperationType{admissionv1.OperationAll},
		Rule:       admissionv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: []string{"*/*"}},
	}}
	return &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "guard"}, Webhooks: []admissionv1.ValidatingWebhook{w},
	}
}

func TestCheckCommandWarnsOfWebhooksForRenewals(t *testing.T) {
	selecting := func(key string, operator metav1.LabelSelectorOperator, values ...string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: operator, Values: values}}}
	}
	const stops, waits = "no pod renews its hold, so all applications stop: all.guard.example", "each renewal of a hold waits for these webhooks: all.guard.example"
	for name, c := range map[string]struct {
		change func(w *admissionv1.ValidatingWebhook)
		says   string
	}{
		"all objects": {func(*admissionv1.ValidatingWebhook) {}, stops},
		"by default":  {func(w *admissionv1.ValidatingWebhook) { w.FailurePolicy = nil }, stops},
		"lenient":     {func(w *admissionv1.ValidatingWebhook) { w.FailurePolicy = new(admissionv1.Ignore) }, waits},
		"the group's Leases": {func(w *admissionv1.ValidatingWebhook) {
			w.Rules[0].APIGroups, w.Rules[0].Resources = []string{"coordination.k8s.io"}, []string{"leases"}
		}, stops},
		"other resources": {func(w *admissionv1.ValidatingWebhook) { w.Rules[0].Resources = []string{"pods"} }, ""},
		"other groups":    {func(w *admissionv1.ValidatingWebhook) { w.Rules[0].APIGroups = []string{"", "apps"} }, ""},
		"creations": {func(w *admissionv1.ValidatingWebhook) {
			w.Rules[0].Operations = []admissionv1.OperationType{admissionv1.Create}
		}, ""},
		"cluster-wide": {func(w *admissionv1.ValidatingWebhook) { w.Rules[0].Scope = new(admissionv1.ClusterScope) }, ""},
		"other namespaces": {func(w *admissionv1.ValidatingWebhook) {
			w.NamespaceSelector = selecting(corev1.LabelMetadataName, metav1.LabelSelectorOpNotIn, "shop")
		}, ""},
		"these namespaces": {func(w *admissionv1.ValidatingWebhook) {
			w.NamespaceSelector = selecting(corev1.LabelMetadataName, metav1.LabelSelectorOpIn, "shop")
		}, stops},
		"other labels": {func(w *admissionv1.ValidatingWebhook) {
			w.ObjectSelector = selecting("guard", metav1.LabelSelectorOpExists)
		}, ""},
		"Leases exempted": {func(w *admissionv1.ValidatingWebhook) {
			w.MatchConditions = []admissionv1.MatchCondition{{Expression: "request.resource.resource != 'leases'"}}
		}, ""},
		"only others exempted": {func(w *admissionv1.ValidatingWebhook) {
			w.MatchConditions = []admissionv1.MatchCondition{{Expression: "request.resource.group != 'events.k8s.io'"}}
		}, stops},
	} {
		s := healthy(t)
		guard := intercepting()
		c.change(&guard.Webhooks[0])
		s.workloads = append(s.workloads, guard)
		if f := named(t, s, "renewals"); c.says == "" {
			assert.Equal(t, OK, f.Result, name)
		} else {
			assert.Equal(t, Warning, f.Result, name)
			assert.Contains(t, f.Says, c.says, name)
			assert.Contains(t, f.Do, "leases of coordination.k8s.io", name)
		}
	}
	s := healthy(t)
	labels := intercepting().Webhooks[0]
	s.workloads = append(s.workloads, &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "labels"},
		Webhooks:   []admissionv1.MutatingWebhook{{Name: "labels.example", Rules: labels.Rules}},
	})
	assert.Contains(t, named(t, s, "renewals").Says, "labels.example", "a mutating webhook counts, too")
}

func TestCheckCommandWarnsOfRenewalsWithoutPriority(t *testing.T) {
	// first adds a FlowSchema that comes before those of Metaparticle, unless the subject is another one.
	first := func(s *scene, subject flowcontrolv1.Subject) *flowcontrolv1.FlowSchema {
		other := everything("tenants", 200, "tenants")
		other.Spec.Rules[0].Subjects = []flowcontrolv1.Subject{subject}
		s.schemas = append(s.schemas, other)
		return &s.schemas[len(s.schemas)-1]
	}
	account := func(namespace, name string) flowcontrolv1.Subject {
		return flowcontrolv1.Subject{ServiceAccount: &flowcontrolv1.ServiceAccountSubject{Namespace: namespace, Name: name}}
	}
	dangle := []flowcontrolv1.FlowSchemaCondition{{Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionTrue}}
	for name, c := range map[string]struct {
		fault    func(s *scene)
		says, do string
	}{
		"no level":          {func(s *scene) { s.level.Name = "" }, "prioritylevelconfiguration/metaparticle is missing", "flowControl.enabled=true"},
		"no FlowSchema":     {func(s *scene) { s.schemas = s.schemas[1:] }, "flowschema/metaparticle-agents is missing", "flowControl.enabled=true"},
		"none for webhooks": {func(s *scene) { s.schemas[1].Name = "other" }, "flowschema/metaparticle-webhook is missing", "install again"},
		"no seats":          {func(s *scene) { s.level.Spec.Limited.NominalConcurrencyShares = new(int32) }, "has fewer seats", "install again"},
		"all seats lent":    {func(s *scene) { s.level.Spec.Limited.LendablePercent = new(int32(100)) }, "has fewer seats", "install again"},
		"no queues":         {func(s *scene) { s.level.Spec.Limited.LimitResponse.Type = "Reject" }, "or no queues", "install again"},
		"switched off":      {func(s *scene) { s.unfair = true }, "API Priority and Fairness is off", "--enable-priority-and-fairness"},
		"a lost level":      {func(s *scene) { s.schemas[0].Status.Conditions = dangle }, "names a priority level that does not exist", "install again"},
		"fewer verbs":       {func(s *scene) { s.schemas[0].Spec.Rules[0].ResourceRules[0].Verbs = []string{"get", "watch"} }, "flowschema/service-accounts sends the requests of shop/default for leases to the priority level workload-low", "install again"},
		"other subjects":    {func(s *scene) { s.schemas[0].Spec.Rules[0].Subjects[0].Group.Name = "system:nodes" }, "flowschema/service-accounts sends", "install again"},
		"no FlowSchema left": {func(s *scene) {
			s.schemas[0].Spec.Rules, s.schemas = nil, s.schemas[:2]
		}, "no FlowSchema has the requests of shop/default", "install again"},
		"another first": {func(s *scene) {
			first(s, account("shop", "*"))
		}, "flowschema/tenants sends the requests of shop/default for leases to the priority level tenants", "a matchingPrecedence above 300"},
		"another first for an account": {func(s *scene) {
			biller := s.pod(api.Gated, "agent@sha256:1")
			biller.Spec.ServiceAccountName = "biller"
			s.pods = append(s.pods, biller)
			first(s, account("shop", "biller"))
		}, "the requests of shop/biller", "exempt these requests from flowschema/tenants"},
		"another first for the webhook": {func(s *scene) {
			first(s, flowcontrolv1.Subject{User: &flowcontrolv1.UserSubject{Name: "system:serviceaccount:metaparticle-system:metaparticle-webhook"}})
		}, "the requests of metaparticle-system/metaparticle-webhook", "exempt these requests"},
		"another account first": {func(s *scene) { first(s, account("shop", "other")) }, "", ""},
		"another that is exempt": {func(s *scene) {
			first(s, account("shop", "*")).Spec.PriorityLevelConfiguration.Name = "exempt"
		}, "", ""},
		"another without a level": {func(s *scene) {
			first(s, account("shop", "*")).Status.Conditions = dangle
		}, "", ""},
		"more seats":        {func(s *scene) { s.level.Spec.Limited.NominalConcurrencyShares = new(int32(50)) }, "", ""},
		"no right on pods":  {func(s *scene) { s.forbidden = "pods" }, "", ""},
		"no limit of seats": {func(s *scene) { s.level.Spec = flowcontrolv1.PriorityLevelConfigurationSpec{Type: "Exempt"} }, "", ""},
	} {
		s := healthy(t)
		c.fault(s)
		f := named(t, s, "priority")
		if c.says == "" {
			assert.Equal(t, OK, f.Result, "%s: %+v", name, f)
			continue
		}
		assert.Equal(t, Warning, f.Result, "%s: %+v", name, f)
		assert.Contains(t, f.Says, "renewals can wait behind the requests of other programs: ", name)
		assert.Contains(t, f.Says, c.says, name)
		assert.Contains(t, f.Do, c.do, name)
	}
	s := healthy(t)
	s.forbidden = "flowschemas"
	assert.Equal(t, Unknown, named(t, s, "priority").Result)
}

func TestCheckCommandWarnsOfSeveralSingletonsOfOneOwner(t *testing.T) {
	by := func(version, kind, name string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: name, UID: "u", Controller: new(true)}}
	}
	s := healthy(t)
	for _, name := range []string{"main-a", "main-b"} {
		pod := s.pod(api.Gated, "agent@sha256:1")
		pod.Name, pod.OwnerReferences = name+"-0", by("apps/v1", "StatefulSet", name)
		pod.Annotations = map[string]string{api.SlotsAnnotation: "singleton.statefulset." + name}
		s.pods = append(s.pods, pod)
		s.workloads = append(s.workloads, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, OwnerReferences: by("monitoring.example/v1", "Prometheus", "main")}})
	}
	f := named(t, s, "owners")
	assert.Equal(t, Warning, f.Result)
	assert.Equal(t, "one object controls several workloads whose pods have a singleton of their own, so one pod of each runs: "+
		"shop/Prometheus.monitoring.example/main (StatefulSet/main-a, StatefulSet/main-b)", f.Says)
	assert.Contains(t, f.Do, "metaparticle.io/lock")
	s.pods = s.pods[:1]
	assert.Empty(t, named(t, s, "owners"), "one StatefulSet of an operator is what most people have")
}
