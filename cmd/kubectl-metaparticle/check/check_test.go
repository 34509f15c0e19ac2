// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/manifests"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// scene is a cluster with a healthy installation, which a test changes before the checks.
type scene struct {
	nodes       []corev1.Node
	clocks      []coordinationv1.Lease
	deployment  appsv1.Deployment
	certificate *unstructured.Unstructured
	definition  *unstructured.Unstructured
	webhooks    admissionv1.MutatingWebhookConfiguration
	optIn       admissionv1.ValidatingWebhookConfiguration
	policies    []admissionv1.ValidatingAdmissionPolicy
	bindings    []admissionv1.ValidatingAdmissionPolicyBinding
	level       flowcontrolv1.PriorityLevelConfiguration
	schemas     []flowcontrolv1.FlowSchema
	elected     coordinationv1.Lease
	held        coordinationv1.Lease
	namespaces  []corev1.Namespace
	pods        []corev1.Pod
	workloads   []client.Object
	version     string
	image       string
	// issue is the error of the dry run of an Issuer. The field "admit" is the error of the dry
	// run of a pod. Both are nil for success.
	issue, admit error
	// full is a namespace whose ResourceQuota refuses each pod.
	full string
	// ungated reports that the webhook passes pods as they are.
	ungated bool
	// release is the version of the plugin.
	release string
	// forbidden names the objects that the plugin's user may not list, such as "nodes". The field
	// "denied" is a resource that this user may not change.
	forbidden, denied string
	// unfair means that API Priority and Fairness is off.
	unfair bool
}

func healthy(t *testing.T) *scene {
	t.Helper()
	s := &scene{version: "v1.37.1"}
	node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
	node.Status.NodeInfo = corev1.NodeSystemInfo{KubeletVersion: "v1.37.1", OperatingSystem: "linux", Architecture: "arm64"}
	s.nodes = []corev1.Node{node}
	s.clocks = []coordinationv1.Lease{leaseAt(corev1.NamespaceNodeLease, "node-1", "node-1", noon.Add(-8*time.Second))}
	s.deployment.Namespace, s.deployment.Name = home, name
	s.deployment.Spec.Replicas = new(int32(2))
	s.deployment.Spec.Template.Spec.Containers = []corev1.Container{{
		Name: "webhook", Image: "webhook@sha256:1", Env: []corev1.EnvVar{{Name: "AGENT_IMAGE", Value: "agent@sha256:1"}},
	}}
	s.deployment.Status = appsv1.DeploymentStatus{AvailableReplicas: 2, UpdatedReplicas: 2}
	s.certificate = object("cert-manager.io/v1", "Certificate", home, name)
	s.certificate.Object["status"] = map[string]any{"notAfter": noon.AddDate(0, 1, 0).Format(time.RFC3339)}
	s.definition = object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "variables.metaparticle.io")
	s.definition.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Established", "status": "True"}}}
	both := bytes.SplitN(manifests.WebhookConfiguration, []byte("\n---\n"), 2)
	require.NoError(t, yaml.UnmarshalStrict(both[0], &s.webhooks))
	require.NoError(t, yaml.UnmarshalStrict(both[1], &s.optIn))
	s.optIn.Webhooks[0].ClientConfig.CABundle = authority(t, noon.AddDate(1, 0, 0))
	for i := range s.webhooks.Webhooks {
		s.webhooks.Webhooks[i].ClientConfig.CABundle = authority(t, noon.AddDate(1, 0, 0))
	}
	var err error
	s.policies, err = policies()
	require.NoError(t, err)
	for _, p := range s.policies {
		b := admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: p.Name}}
		b.Spec = admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: p.Name, ValidationActions: []admissionv1.ValidationAction{action(p)}}
		s.bindings = append(s.bindings, b)
	}
	s.level, s.schemas, err = flowControl()
	require.NoError(t, err)
	// The API server sends the requests of service accounts that no other FlowSchema has to workload-low.
	s.schemas = append(s.schemas, everything("service-accounts", 9000, "workload-low"))
	s.elected = leaseAt(home, elected, "metaparticle-webhook-1_x", noon.Add(-2*time.Second))
	s.held = leaseAt("shop", "lock.a", "a_u", noon)
	s.held.Labels, s.held.Annotations = map[string]string{api.ManagedLabel: "true"}, map[string]string{api.TokenAnnotation: "42"}
	s.namespaces = []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled}}}}
	return s
}

// everything returns a FlowSchema that has all requests of service accounts.
func everything(name string, precedence int32, level string) flowcontrolv1.FlowSchema {
	s := flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: name}}
	s.Spec.MatchingPrecedence, s.Spec.PriorityLevelConfiguration.Name = precedence, level
	s.Spec.Rules = []flowcontrolv1.PolicyRulesWithSubjects{{
		Subjects:      []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: "system:serviceaccounts"}}},
		ResourceRules: []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}}},
	}}
	return s
}

func leaseAt(namespace, name, holder string, renewed time.Time) coordinationv1.Lease {
	return coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &metav1.MicroTime{Time: renewed}},
	}
}

// authority returns the certificate of a CA. The certificate ends at the given instant.
func authority(t *testing.T, ends time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: noon.AddDate(-2, 0, 0), NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// cluster returns the scene behind a fake API server, which also answers in place of the webhooks.
func (s *scene) cluster() Cluster {
	there := []client.Object{&s.deployment, s.certificate, s.definition, &s.webhooks, &s.optIn, &s.level, &s.elected, &s.held}
	for i := range s.nodes {
		there = append(there, &s.nodes[i])
	}
	for i := range s.clocks {
		there = append(there, &s.clocks[i])
	}
	for i := range s.policies {
		there = append(there, &s.policies[i])
	}
	for i := range s.bindings {
		there = append(there, &s.bindings[i])
	}
	for i := range s.schemas {
		there = append(there, &s.schemas[i])
	}
	for i := range s.namespaces {
		there = append(there, &s.namespaces[i])
	}
	for i := range s.pods {
		there = append(there, &s.pods[i])
	}
	there = append(there, s.workloads...)
	kept := there[:0]
	for _, o := range there {
		if o.GetName() != "" {
			kept = append(kept, o)
		}
	}
	server := fake.NewClientBuilder().WithObjects(kept...).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			switch o := o.(type) {
			case *authorizationv1.SelfSubjectAccessReview:
				o.Status.Allowed = o.Spec.ResourceAttributes.Resource != s.denied
				return nil
			case *unstructured.Unstructured:
				return s.issue
			case *corev1.Pod:
				if o.Namespace == s.full {
					return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "try", errors.New("exceeded quota: few"))
				}
				if s.admit == nil && !s.ungated {
					o.Labels = map[string]string{api.GatedLabel: api.Gated}
				}
				return s.admit
			}
			return errors.New("a check creates nothing else")
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			kind := strings.TrimSuffix(reflect.TypeOf(list).Elem().Name(), "List")
			if strings.EqualFold(s.forbidden, kind+"s") {
				return apierrors.NewForbidden(schema.GroupResource{Resource: s.forbidden}, "", errors.New("no"))
			}
			err := c.List(ctx, list, options...)
			list.SetResourceVersion("42")
			return err
		},
	}).Build()
	return Cluster{Client: server, Version: version.Info{GitVersion: s.version}, Now: noon, Fair: !s.unfair, Image: s.image, Release: s.release}
}

func TestHealthyInstallationPassesEachCheck(t *testing.T) {
	s := healthy(t)
	s.image = "redis"
	findings := After(t.Context(), s.cluster())
	require.Len(t, findings, 17)
	for _, f := range findings {
		assert.Equal(t, OK, f.Result, "%+v", f)
		assert.Empty(t, f.Do)
	}
	assert.Equal(t, Finding{Check: "API server", Result: OK, Says: "Kubernetes v1.37.1"}, findings[0])
}

func TestCheckCommandReportsEachFaultOfAnInstallation(t *testing.T) {
	for name, test := range map[string]struct {
		fault  func(s *scene)
		check  string
		result Result
		says   string
	}{
		"an old API server":           {func(s *scene) { s.version = "v1.32.9" }, "API server", Failed, "is older than 1.33.0"},
		"no node of Linux":            {func(s *scene) { s.nodes[0].Status.NodeInfo.OperatingSystem = "windows" }, "nodes", Failed, "no node"},
		"an old kubelet":              {func(s *scene) { s.nodes = append(s.nodes, s.oldNode()) }, "nodes", Warning, "old (v1.32.0)"},
		"no right to read nodes":      {func(s *scene) { s.forbidden = "nodes" }, "nodes", Unknown, "forbidden"},
		"a clock ahead":               {func(s *scene) { s.clocks[0].Spec.RenewTime.Time = noon.Add(time.Minute) }, "clocks", Warning, "node-1 is 1m0s ahead"},
		"a silent node":               {func(s *scene) { s.clocks[0].Spec.RenewTime.Time = noon.Add(-time.Hour) }, "clocks", Warning, "node-1 last wrote 1h0m0s ago"},
		"no webhook":                  {func(s *scene) { s.deployment = appsv1.Deployment{} }, "webhook", Failed, "is not installed"},
		"no replica":                  {func(s *scene) { s.deployment.Status.AvailableReplicas = 0 }, "webhook", Failed, "none of 2 replicas"},
		"a replica that is down":      {func(s *scene) { s.deployment.Status.AvailableReplicas = 1 }, "webhook", Warning, "1 of 2 replicas"},
		"a single replica":            {func(s *scene) { s.deployment.Spec.Replicas = new(int32(1)) }, "webhook", Warning, "one replica answers"},
		"a certificate never issued":  {func(s *scene) { delete(s.certificate.Object, "status") }, "certificate", Failed, "has issued no certificate"},
		"a certificate that ended":    {func(s *scene) { s.ends(noon.Add(-time.Hour)) }, "certificate", Failed, "ended at"},
		"a certificate that ends":     {func(s *scene) { s.ends(noon.Add(24 * time.Hour)) }, "certificate", Warning, "has not renewed it"},
		"no configuration":            {func(s *scene) { s.webhooks.Name = "" }, "configuration", Failed, "nothing is injected"},
		"a webhook that is missing":   {func(s *scene) { s.webhooks.Webhooks = s.webhooks.Webhooks[1:] }, "configuration", Failed, "pods.metaparticle.io is missing"},
		"a webhook that may fail":     {func(s *scene) { s.webhooks.Webhooks[0].FailurePolicy = new(admissionv1.Ignore) }, "configuration", Failed, "is Ignore, not Fail"},
		"lost conditions":             {func(s *scene) { s.webhooks.Webhooks[0].MatchConditions = nil }, "configuration", Warning, "has lost its matchConditions"},
		"no CA":                       {func(s *scene) { s.webhooks.Webhooks[1].ClientConfig.CABundle = nil }, "configuration", Failed, "has no CA"},
		"a CA that ended":             {func(s *scene) { s.webhooks.Webhooks[1].ClientConfig.CABundle = authority(t, noon.Add(-1)) }, "configuration", Failed, "its CA is valid from"},
		"a policy that is missing":    {func(s *scene) { s.policies = s.policies[1:] }, "policies", Failed, "policies are missing: metaparticle-after"},
		"a policy that is not bound":  {func(s *scene) { s.bindings = s.bindings[1:] }, "policies", Failed, "not bound: metaparticle-after"},
		"a policy that only warns":    {func(s *scene) { s.bindings[0].Spec.ValidationActions[0] = admissionv1.Warn }, "policies", Failed, "not bound"},
		"a policy that was changed":   {func(s *scene) { s.policies[0].Spec.Validations[0].Expression = "true" }, "policies", Warning, "policies differ"},
		"a policy that may fail":      {func(s *scene) { s.policies[0].Spec.FailurePolicy = new(admissionv1.Ignore) }, "policies", Warning, "policies differ"},
		"a token of another cluster":  {func(s *scene) { s.held.Annotations[api.TokenAnnotation] = "43" }, "tokens", Failed, "shop/lock.a has the token 43 above"},
		"no Variables":                {func(s *scene) { s.definition.SetName("") }, "Variables", Failed, "does not exist"},
		"Variables that come":         {func(s *scene) { delete(s.definition.Object, "status") }, "Variables", Failed, "not served yet"},
		"nobody enrolls":              {func(s *scene) { s.elected.Spec.HolderIdentity = new("") }, "enroll", Failed, "no replica enrolls"},
		"a silent replica":            {func(s *scene) { s.elected.Spec.RenewTime.Time = noon.Add(-time.Hour) }, "enroll", Failed, "has been silent"},
		"no namespace":                {func(s *scene) { s.namespaces = nil }, "admission", Warning, "no namespace has opted in"},
		"a webhook that refuses":      {func(s *scene) { s.admit = errors.New("no answer") }, "admission", Failed, "no answer"},
		"a webhook that lets through": {func(s *scene) { s.ungated = true }, "admission", Failed, "got no gate"},
		"an unreadable image":         {func(s *scene) { s.image, s.admit = "redis", errors.New("ImageUnreadable") }, "registry", Failed, "cannot read redis"},
		"a pod without a gate":        {func(s *scene) { s.pods = []corev1.Pod{s.pod("", "")} }, "pods", Failed, "run without a gate: shop/pod/biller"},
		"a Service that is refused":   {func(s *scene) { s.refuses() }, "Services", Warning, "shop/biller (port 8080/TCP)"},
	} {
		s := healthy(t)
		test.fault(s)
		findings := After(t.Context(), s.cluster())
		seen := false
		for _, f := range findings {
			if f.Check == test.check {
				seen = true
				assert.Equal(t, test.result, f.Result, "%s: %+v", name, f)
				assert.Contains(t, f.Says, test.says, name)
				assert.NotEmpty(t, f.Do, name)
			}
		}
		assert.True(t, seen, name)
	}
}

// The annotations of pods from before a claim tell nothing.
func TestCheckCommandCountsPodsOfWorkloads(t *testing.T) {
	biller := func(replicas int32, message string) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "biller", Annotations: map[string]string{api.SingletonAnnotation: "true"}}}
		d.Status.Replicas = replicas
		if message != "" {
			d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: message}}
		}
		return d
	}
	for says, d := range map[string]*appsv1.Deployment{
		"pods claim, and run without a gate: shop/deployment/biller (2)":                                             biller(2, ""),
		"pods that claim are refused: shop/deployment/biller":                                                        biller(0, "no such host"),
		"pods claim, and run without a gate: shop/deployment/biller (2); others are refused: shop/deployment/biller": biller(2, "no such host"),
	} {
		s := healthy(t)
		s.workloads = []client.Object{d}
		f, err := s.cluster().pods(t.Context())
		require.NoError(t, err)
		assert.Equal(t, Finding{Result: Failed, Says: says, Do: "kubectl metaparticle explain -n shop deployment/biller"}, f)
	}
}

func TestCheckCommandEndsAtAMissingInstallation(t *testing.T) {
	s := healthy(t)
	s.deployment, s.webhooks, s.policies, s.bindings = appsv1.Deployment{}, admissionv1.MutatingWebhookConfiguration{}, nil, nil
	findings := After(t.Context(), s.cluster())
	last := findings[len(findings)-1]
	assert.Equal(t, "webhook", last.Check)
	assert.Equal(t, Failed, last.Result)
	for _, f := range findings[:len(findings)-1] {
		assert.Equal(t, OK, f.Result, f.Check)
	}
}

func TestCheckCommandReportsNoFaultForOlderAgents(t *testing.T) {
	for image, says := range map[string]string{
		"agent@sha256:0":                "1 pod is gated, and 1 of them have the agent of another version until they are replaced",
		"mirror.example/agent@sha256:1": "1 pod is gated",
	} {
		s := healthy(t)
		s.pods = []corev1.Pod{s.pod(api.Gated, image)}
		f, err := s.cluster().pods(t.Context())
		require.NoError(t, err)
		assert.Equal(t, Finding{Result: OK, Says: says}, f, image)
	}
}

func TestCheckCommandReportsEachObstacleToAnInstallation(t *testing.T) {
	bare := func(t *testing.T) *scene {
		s := healthy(t)
		s.deployment = appsv1.Deployment{}
		return s
	}
	for _, f := range Before(t.Context(), bare(t).cluster()) {
		assert.Equal(t, OK, f.Result, "%+v", f)
	}
	for name, test := range map[string]struct {
		fault  func(s *scene)
		check  string
		result Result
		says   string
	}{
		"no cert-manager":               {func(s *scene) { s.issue = &meta.NoKindMatchError{} }, "cert-manager", Failed, "is not installed"},
		"a cert-manager without answer": {func(s *scene) { s.issue = errors.New("connection refused") }, "cert-manager", Failed, "connection refused"},
		"too few rights":                {func(s *scene) { s.denied = "clusterroles" }, "rights", Failed, "create clusterroles.rbac.authorization.k8s.io"},
		"a foreign webhook":             {func(s *scene) { s.guards(nil) }, "renewals", Warning, "all applications stop: all.guard.example"},
		"a webhook after the opt-in":    {func(s *scene) { s.guards(map[string]string{api.InjectionLabel: api.InjectionEnabled}) }, "renewals", Warning, "all.guard.example"},
		"an installation":               {func(s *scene) { *s = *healthy(t) }, "installation", Warning, "is installed: webhook@sha256:1"},
	} {
		s := bare(t)
		test.fault(s)
		seen := false
		for _, f := range Before(t.Context(), s.cluster()) {
			if f.Check == test.check {
				seen = true
				assert.Equal(t, test.result, f.Result, "%s: %+v", name, f)
				assert.Contains(t, f.Says, test.says, name)
				assert.NotEmpty(t, f.Do, name)
			}
		}
		assert.True(t, seen, name)
	}
}

// Before an installation, a webhook that the API server calls only in the cluster's own namespaces is no
// obstacle.
func TestWebhookOfSystemNamespacesHindersNoInstallation(t *testing.T) {
	s := healthy(t)
	s.deployment = appsv1.Deployment{}
	s.guards(map[string]string{"system": "yes"})
	for _, name := range []string{home, metav1.NamespaceSystem} {
		s.namespaces = append(s.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"system": "yes"}}})
	}
	for _, f := range Before(t.Context(), s.cluster()) {
		assert.Equal(t, OK, f.Result, "%+v", f)
	}
}

// guards adds a foreign webhook for each update in the namespaces with the given labels. The only
// namespace has not opted in.
func (s *scene) guards(namespaces map[string]string) {
	s.namespaces = []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}
	guard := intercepting()
	guard.Webhooks[0].NamespaceSelector = &metav1.LabelSelector{MatchLabels: namespaces}
	s.workloads = append(s.workloads, guard)
}

func (s *scene) oldNode() corev1.Node {
	node := *s.nodes[0].DeepCopy()
	node.Name, node.Status.NodeInfo.KubeletVersion = "old", "v1.32.0"
	return node
}

func (s *scene) ends(at time.Time) {
	s.certificate.Object["status"] = map[string]any{"notAfter": at.Format(time.RFC3339)}
}

// pod returns a pod that claims. If the argument "gated" is not empty, the pod's label
// [api.GatedLabel] has this value, and the pod has an agent of the given image.
// refuses adds two pods whose standbys forward nothing, and their Service.
func (s *scene) refuses() {
	for _, name := range []string{"biller-1", "biller-2"} {
		p := s.pod(api.Gated, "agent@sha256:1")
		p.Name, p.Labels["app"] = name, "biller"
		p.Spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		p.Spec.InitContainers[0].Args = api.DefaultRunArgs().Args()
		s.pods = append(s.pods, p)
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "biller"}}
	service.Spec = corev1.ServiceSpec{Selector: map[string]string{"app": "biller"}, Ports: []corev1.ServicePort{{Port: 8080}}}
	s.workloads = append(s.workloads, service)
}

func (s *scene) pod(gated, agent string) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "biller", Annotations: map[string]string{api.LockAnnotation: "a"}}}
	if gated != "" {
		p.Labels = map[string]string{api.GatedLabel: gated}
		p.Spec.InitContainers = []corev1.Container{{Name: api.AgentContainer, Image: agent}}
	}
	return p
}

func TestCheckCommandReportsPoliciesWithChangedMatchConstraints(t *testing.T) {
	for name, change := range map[string]func(*admissionv1.ValidatingAdmissionPolicy){
		"namespaces": func(p *admissionv1.ValidatingAdmissionPolicy) {
			p.Spec.MatchConstraints.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "where"}}
		},
		"rules": func(p *admissionv1.ValidatingAdmissionPolicy) {
			p.Spec.MatchConstraints.ResourceRules[0].Operations = []admissionv1.OperationType{admissionv1.Connect}
		},
		"excluded": func(p *admissionv1.ValidatingAdmissionPolicy) {
			p.Spec.MatchConstraints.ExcludeResourceRules = p.Spec.MatchConstraints.ResourceRules
		},
	} {
		s := healthy(t)
		for i := range s.policies {
			change(&s.policies[i])
		}
		f, err := s.cluster().policies(t.Context())
		require.NoError(t, err)
		assert.NotEqual(t, OK, f.Result, "%s: %s", name, f.Says)
	}
}

func TestCheckCommandReportsChangedWebhookServerOrRules(t *testing.T) {
	for name, change := range map[string]func(*admissionv1.MutatingWebhook){
		"another server": func(w *admissionv1.MutatingWebhook) {
			w.ClientConfig.Service, w.ClientConfig.URL = nil, new("https://evil.example/pods")
		},
		"no namespace": func(w *admissionv1.MutatingWebhook) {
			w.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "where"}}
		},
		"more rights": func(w *admissionv1.MutatingWebhook) {
			w.Rules[0].APIGroups, w.Rules[0].Resources = []string{"*"}, []string{"*"}
		},
	} {
		s := healthy(t)
		for i := range s.webhooks.Webhooks {
			change(&s.webhooks.Webhooks[i])
		}
		f, err := s.cluster().configuration(t.Context())
		require.NoError(t, err)
		assert.NotEqual(t, OK, f.Result, "%s: %s", name, f.Says)
	}
}
