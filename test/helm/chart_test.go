// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"encoding/json"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"
)

// options are the components of the manifests. With each component are the values of the chart that
// have the same effect.
var options = []struct{ component, values string }{
	{"host-network", "hostNetwork: true\n"},
	{"client-ca", "clientCA: {configMap: metaparticle-webhook-callers}\n"},
	{"no-pull-secrets", "readPullSecrets: false\n"},
	{"network-policy", "networkPolicy: {enabled: true}\n"},
	{"monitoring", "monitoring: {serviceMonitor: true, podMonitor: true}\n"},
	{"console", "console: {enabled: true}\n"},
	{"no-flow-control", "flowControl: {enabled: false}\n"},
}

// TestChartEqualsTheKustomizationForAllOptions compares the objects of the chart with those of the
// kustomization: without components, with each component, with each pair of components, and with
// all. The chart lacks the namespace, because Helm stores the release in the namespace before Helm
// applies an object. In the chart, the definition of Variables has one more annotation. By that
// annotation, Helm keeps the definition when a person uninstalls the chart.
func TestChartEqualsTheKustomizationForAllOptions(t *testing.T) {
	components, err := filepath.Glob("../../manifests/components/*")
	require.NoError(t, err)
	require.Len(t, components, len(options), "each component needs a value of the chart")
	chart := complete(t)
	for chosen := range 1 << len(options) {
		if n := bits.OnesCount(uint(chosen)); n > 2 && n < len(options) {
			continue
		}
		var names []string
		var values strings.Builder
		for i, option := range options {
			if chosen&(1<<i) != 0 {
				names = append(names, option.component)
				values.WriteString(option.values)
			}
		}
		t.Run("with "+strings.Join(names, " "), func(t *testing.T) {
			r, err := attempt{chart: chart, release: "metaparticle", namespace: namespace, values: values.String()}.render()
			require.NoError(t, err)
			is, want := byName(t, r.objects), byName(t, kustomized(t, names...))
			delete(want, "Namespace/"+namespace)
			definition := is["CustomResourceDefinition/variables.metaparticle.io"]["metadata"].(object)
			assert.Equal(t, object{"helm.sh/resource-policy": "keep"}, definition["annotations"])
			delete(definition, "annotations")
			for name := range want {
				assert.Equal(t, want[name], is[name], name)
			}
			for name := range is {
				assert.Contains(t, want, name)
			}
		})
	}
}

// below returns the path with further elements.
func below(path []any, more ...any) []any { return slices.Concat(path, more) }

func TestChartValuesAppearInTheRenderedObjects(t *testing.T) {
	pod, container := []any{"spec", "template", "spec"}, []any{"spec", "template", "spec", "containers", 0}
	for _, c := range []struct {
		values, object string
		path           []any
		want           any
	}{
		{"replicas: 5", "Deployment/metaparticle-webhook", []any{"spec", "replicas"}, 5.0},
		{"replicaCount: 5", "Deployment/metaparticle-webhook", []any{"spec", "replicas"}, 5.0},
		{"{replicas: 5, replicaCount: 5}", "Deployment/metaparticle-webhook", []any{"spec", "replicas"}, 5.0},
		{"resources: {limits: {memory: 1Gi}}", "Deployment/metaparticle-webhook", below(container, "resources"), object{"requests": object{"cpu": "20m", "memory": "64Mi"}, "limits": object{"memory": "1Gi"}}},
		{"image: {registry: other.example:5000}", "Deployment/metaparticle-webhook", below(container, "image"), "other.example:5000/webhook:1.2.3"},
		{"image: {webhook: {tag: \"7\"}}", "Deployment/metaparticle-webhook", below(container, "image"), registry + "/webhook:7"},
		{"image: {agent: {repository: a/b, digest: \"sha256:" + strings.Repeat("0", 64) + "\"}}", "Deployment/metaparticle-webhook", below(container, "env", 0, "value"), registry + "/a/b@sha256:" + strings.Repeat("0", 64)},
		{"image: {pullPolicy: Always}", "Deployment/metaparticle-webhook", below(container, "imagePullPolicy"), "Always"},
		{"imagePullSecrets: [{name: s}]", "Deployment/metaparticle-webhook", below(pod, "imagePullSecrets"), []any{object{"name": "s"}}},
		{"priorityClassName: mine", "Deployment/metaparticle-webhook", below(pod, "priorityClassName"), "mine"},
		{"priorityClassName: mine", "ResourceQuota/metaparticle-critical-pods", []any{"spec", "scopeSelector", "matchExpressions", 0, "values"}, []any{"mine"}},
		{"priorityClassName: ''", "Deployment/metaparticle-webhook", below(pod, "priorityClassName"), nil},
		{"nodeSelector: {pool: system}", "Deployment/metaparticle-webhook", below(pod, "nodeSelector"), object{"pool": "system", "kubernetes.io/os": "linux"}},
		{"tolerations: [{operator: Exists}]", "Deployment/metaparticle-webhook", below(pod, "tolerations"), []any{object{"operator": "Exists"}}},
		{"tolerations: []", "Deployment/metaparticle-webhook", below(pod, "tolerations"), []any{}},
		{"affinity: {podAffinity: {a: 1}}", "Deployment/metaparticle-webhook", below(pod, "affinity"), object{"podAffinity": object{"a": 1.0}}},
		{"{hostNetwork: true, affinity: {podAffinity: {a: 1}, podAntiAffinity: {}}}", "Deployment/metaparticle-webhook", below(pod, "affinity", "podAffinity"), object{"a": 1.0}},
		{"{hostNetwork: true, affinity: {podAntiAffinity: {}}}", "Deployment/metaparticle-webhook", below(pod, "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution", 0, "topologyKey"), "kubernetes.io/hostname"},
		{"podAnnotations: {a: b}", "Deployment/metaparticle-webhook", []any{"spec", "template", "metadata", "annotations", "a"}, "b"},
		{"podLabels: {a: b, app.kubernetes.io/name: c}", "Deployment/metaparticle-webhook", []any{"spec", "template", "metadata", "labels"}, object{"a": "b", "app.kubernetes.io/name": "metaparticle-webhook"}},
		{"clientCA: {configMap: callers-of-mine}", "Deployment/metaparticle-webhook", below(pod, "volumes", 1, "configMap", "name"), "callers-of-mine"},
		{"registries: {plainHTTP: ['10.0.0.1:5000'], mirrors: [docker.io=m.example], networks: [10.0.0.0/8], caConfigMap: ca}", "Deployment/metaparticle-webhook", below(container, "args"), []any{
			"--cert-dir=/certificates", "--plain-http-registry=10.0.0.1:5000", "--registry-mirror=docker.io=m.example", "--registry-network=10.0.0.0/8", "--registry-ca=/registries/ca.crt"}},
		{"registries: {caConfigMap: ca}", "Deployment/metaparticle-webhook", below(container, "volumeMounts", 1), object{"name": "registries", "mountPath": "/registries", "readOnly": true}},
		{"registries: {caConfigMap: ca}", "Deployment/metaparticle-webhook", below(pod, "volumes", 1), object{"name": "registries", "configMap": object{"name": "ca"}}},
		{"monitoring: {serviceMonitor: true, labels: {release: prometheus}}", "ServiceMonitor/metaparticle-webhook", []any{"metadata", "labels"}, object{"release": "prometheus", "app.kubernetes.io/part-of": "metaparticle"}},
		{"monitoring: {serviceMonitor: true, interval: 30s}", "ServiceMonitor/metaparticle-webhook", []any{"spec", "endpoints", 0}, object{"port": "metrics", "interval": "30s"}},
		{"monitoring: {podMonitor: true, labels: {release: prometheus}}", "PodMonitor/metaparticle-agents", []any{"metadata", "labels", "release"}, "prometheus"},
		{"monitoring: {podMonitor: true, interval: 30s}", "PodMonitor/metaparticle-agents", []any{"spec", "podMetricsEndpoints", 0, "interval"}, "30s"},
		{"console: {enabled: true, resources: {limits: {memory: 1Gi}}}", "Deployment/metaparticle-console", below(container, "resources"), object{"requests": object{"cpu": "10m", "memory": "48Mi"}, "limits": object{"memory": "1Gi"}}},
		{"{console: {enabled: true}, image: {webhook: {tag: \"7\"}, pullPolicy: Always}}", "Deployment/metaparticle-console", below(container, "image"), registry + "/webhook:7"},
		{"{console: {enabled: true}, image: {pullPolicy: Always}}", "Deployment/metaparticle-console", below(container, "imagePullPolicy"), "Always"},
		{"{console: {enabled: true}, imagePullSecrets: [{name: s}]}", "Deployment/metaparticle-console", below(pod, "imagePullSecrets"), []any{object{"name": "s"}}},
		{"{console: {enabled: true}, nodeSelector: {pool: system}}", "Deployment/metaparticle-console", below(pod, "nodeSelector"), object{"pool": "system", "kubernetes.io/os": "linux"}},
		{"{console: {enabled: true}, tolerations: []}", "Deployment/metaparticle-console", below(pod, "tolerations"), []any{}},
		{"{console: {enabled: true, nodeSelector: {pool: tools}}, nodeSelector: {pool: system}}", "Deployment/metaparticle-console", below(pod, "nodeSelector"), object{"pool": "tools"}},
		{"console: {enabled: true, priorityClassName: low}", "Deployment/metaparticle-console", below(pod, "priorityClassName"), "low"},
		{"env: [{name: HTTPS_PROXY, value: 'http://p:3128'}]", "Deployment/metaparticle-webhook", below(container, "env", 3), object{"name": "HTTPS_PROXY", "value": "http://p:3128"}},
		{"env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: a, key: b}}}]", "Deployment/metaparticle-webhook", below(container, "env", 3, "valueFrom"), object{"secretKeyRef": object{"name": "a", "key": "b"}}},
		{"{verbose: true, registries: {timeout: 4s}}", "Deployment/metaparticle-webhook", below(container, "args"), []any{"--cert-dir=/certificates", "--image-timeout=4s", "--verbose"}},
		{"topologySpreadConstraints: [{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]", "Deployment/metaparticle-webhook", below(pod, "topologySpreadConstraints"), []any{
			object{"maxSkew": 2.0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}}},
		{"topologySpreadConstraints: []", "Deployment/metaparticle-webhook", below(pod, "topologySpreadConstraints"), []any{}},
		{"serviceAccount: {annotations: {a: b}}", "ServiceAccount/metaparticle-webhook", []any{"metadata", "annotations"}, object{"a": "b"}},
		{"podDisruptionBudget: {maxUnavailable: 50%}", "PodDisruptionBudget/metaparticle-webhook", []any{"spec", "maxUnavailable"}, "50%"},
		{"certificate: {issuerRef: {name: company, kind: ClusterIssuer}}", "Certificate/metaparticle-webhook", []any{"spec", "issuerRef"}, object{"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "company"}},
		{"monitoring: {prometheusRule: {enabled: true, labels: {role: alerts}}, labels: {release: prometheus, role: metrics}}", "PrometheusRule/metaparticle", []any{"metadata", "labels"}, object{
			"app.kubernetes.io/part-of": "metaparticle", "release": "prometheus", "role": "alerts"}},
		{"policies: {audit: true}", "ValidatingAdmissionPolicyBinding/metaparticle-gate", []any{"spec", "validationActions"}, []any{"Deny", "Audit"}},
	} {
		t.Run(c.values, func(t *testing.T) {
			found := byName(t, render(t, c.values).objects)[c.object]
			require.NotNil(t, found)
			assert.Equal(t, c.want, field(t, found, c.path...))
		})
	}
}

func TestQuotaIsRenderedOnlyWithAPriorityClass(t *testing.T) {
	for _, values := range []string{"priorityClassName: ''", "resourceQuota: {enabled: false}"} {
		assert.NotContains(t, byName(t, render(t, values).objects), "ResourceQuota/metaparticle-critical-pods", values)
	}
}

func TestConfiguredIssuerReplacesTheCAOfTheChart(t *testing.T) {
	for values, own := range map[string]bool{"": true, "certificate: {issuerRef: {kind: ClusterIssuer}}": true, "certificate: {issuerRef: {name: company}}": false} {
		objects := byName(t, render(t, values).objects)
		for _, of := range []string{"Issuer/metaparticle-selfsigned", "Issuer/metaparticle-ca", "Certificate/metaparticle-ca"} {
			_, there := objects[of]
			assert.Equal(t, own, there, "%s %s", values, of)
		}
		if own {
			assert.Equal(t, object{"group": "cert-manager.io", "kind": "Issuer", "name": "metaparticle-ca"}, field(t, objects["Certificate/metaparticle-webhook"], "spec", "issuerRef"), values)
		}
	}
}

// The templates of the alerts' texts contain braces, which Helm must not read as actions.
func TestHelmRendersTheAlertRulesUnchanged(t *testing.T) {
	text, err := os.ReadFile("../../monitoring/rules.yaml")
	require.NoError(t, err)
	var rules object
	require.NoError(t, yaml.Unmarshal(text, &rules))
	alerts := byName(t, render(t, "monitoring: {prometheusRule: {enabled: true}}").objects)["PrometheusRule/metaparticle"]
	require.NotNil(t, alerts)
	assert.Equal(t, any(rules), alerts["spec"])
	assert.Equal(t, namespace, field(t, alerts, "metadata", "namespace"))
	assert.NotContains(t, byName(t, render(t, "").objects), "PrometheusRule/metaparticle")
}

func TestNoChartValueDisablesAPolicy(t *testing.T) {
	for _, o := range render(t, "policies: {audit: true}").objects {
		if o["kind"] == "ValidatingAdmissionPolicyBinding" {
			actions := []any{"Deny", "Audit"}
			if strings.HasPrefix(name(o), "ValidatingAdmissionPolicyBinding/metaparticle-ineffective") {
				actions[0] = "Warn"
			}
			assert.Equal(t, actions, field(t, o, "spec", "validationActions"), name(o))
		}
	}
	_, err := attempt{chart: complete(t), release: "metaparticle", namespace: namespace, values: "policies: {enabled: false}"}.render()
	assert.ErrorContains(t, err, "additional properties 'enabled' not allowed")
}

func TestChartSchemaRefusesUnknownAndInvalidValues(t *testing.T) {
	chart := complete(t)
	for values, message := range map[string]string{
		"replica: 3":                                  "additional properties 'replica' not allowed",
		"image: {webhook: {name: x}}":                 "additional properties 'name' not allowed",
		"replicas: 0":                                 "at '/replicas': minimum: got 0, want 1",
		"replicas: two":                               "at '/replicas': got string, want integer",
		"hostNetwork: 'yes'":                          "at '/hostNetwork': got string, want boolean",
		"image: {registry: 'https://r.example'}":      "at '/image/registry': 'https://r.example' does not match pattern",
		"image: {webhook: {digest: latest}}":          "at '/image/webhook/digest': 'latest' does not match pattern",
		"image: {pullPolicy: Sometimes}":              "at '/image/pullPolicy': value must be one of",
		"clientCA: {configMap: Not A Name}":           "at '/clientCA/configMap'",
		"registries: {plainHTTP: ['http://r:80']}":    "at '/registries/plainHTTP/0'",
		"registries: {networks: [10.0.0.1]}":          "at '/registries/networks/0'",
		"registries: {mirrors: [m.example]}":          "at '/registries/mirrors/0'",
		"registries: {mirrors: ['a.b=http://c.d']}":   "at '/registries/mirrors/0'",
		"monitoring: {interval: often}":               "at '/monitoring/interval'",
		"tolerations: [{effect: Never}]":              "at '/tolerations/0/effect'",
		"resources: {limit: {}}":                      "additional properties 'limit' not allowed",
		"{replicas: 3, replicaCount: 5}":              "TwoReplicaCounts: replicas is 3, and replicaCount is 5: set only one of them",
		"replicaCount: 0":                             "at '/replicaCount': minimum: got 0, want 1",
		"podLabels: {a: 1}":                           "at '/podLabels/a': got number, want string",
		"console: {enabled: 'yes'}":                   "at '/console/enabled': got string, want boolean",
		"flowControl: {enabled: 'no'}":                "at '/flowControl/enabled': got string, want boolean",
		"networkPolicy: true":                         "at '/networkPolicy': got boolean, want object",
		"env: {HTTPS_PROXY: x}":                       "at '/env': got object, want array",
		"env: [{name: AGENT_IMAGE, value: x}]":        "at '/env/0/name': 'not' failed",
		"env: [{value: x}]":                           "at '/env/0': missing property 'name'",
		"verbose: 1":                                  "at '/verbose': got number, want boolean",
		"topologySpreadConstraints: [{maxSkew: 1}]":   "at '/topologySpreadConstraints/0': missing properties",
		"serviceAccount: {name: mine}":                "additional properties 'name' not allowed",
		"podDisruptionBudget: {maxUnavailable: half}": "at '/podDisruptionBudget/maxUnavailable'",
		"certificate: {issuerRef: company}":           "at '/certificate/issuerRef': got string, want object",
		"registries: {timeout: long}":                 "at '/registries/timeout'",
		"monitoring: {prometheusRule: true}":          "at '/monitoring/prometheusRule': got boolean, want object",
		"console: {priorityClassName: Not A Name}":    "at '/console/priorityClassName'",
	} {
		_, err := attempt{chart: chart, release: "metaparticle", namespace: namespace, values: values}.render()
		assert.ErrorContains(t, err, message, values)
	}
}

// TestChartSchemaDescribesEveryChartValue compares the keys of values.yaml with those of the
// schema.
func TestChartSchemaDescribesEveryChartValue(t *testing.T) {
	chart := made(t)
	var values, schema object
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &values))
	text, err = os.ReadFile(filepath.Join(chart, "values.schema.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &schema))
	sameKeys(t, "", values, schema)
}

// sameKeys compares one level of the values with its schema. A map of the user's own keys, such as
// labels, has no list of properties.
func sameKeys(t *testing.T, path string, values, schema object) {
	t.Helper()
	properties, ok := schema["properties"].(object)
	if !ok {
		return
	}
	assert.Equal(t, false, schema["additionalProperties"], path)
	for key, value := range values {
		if !assert.Contains(t, properties, key, path) {
			continue
		}
		if nested, ok := value.(object); ok {
			sameKeys(t, path+"/"+key, nested, properties[key].(object))
		}
	}
	for key := range properties {
		if optional := path == "" && key == "global" || path == "/affinity" || strings.HasSuffix(path, "/resources"); !optional {
			assert.Contains(t, values, key, path)
		}
	}
}

// cluster is the source of the objects that the chart's templates look up.
type cluster struct{ client dynamic.Interface }

func (c cluster) GetClientFor(apiVersion, kind string) (dynamic.NamespaceableResourceInterface, bool, error) {
	group, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, false, err
	}
	return c.client.Resource(group.WithResource(strings.ToLower(kind) + "s")), false, nil
}

// containing returns a cluster with one object.
func containing(o object) cluster {
	return cluster{fake.NewSimpleDynamicClient(runtime.NewScheme(), &unstructured.Unstructured{Object: o})}
}

func TestChartRefusesWrongNamespaceOrSecondRelease(t *testing.T) {
	theirs := containing(object{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": object{
		"name": "metaparticle-webhook", "annotations": object{"meta.helm.sh/release-name": "theirs"}}})
	kustomized := containing(object{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": object{"name": "metaparticle-webhook"}})
	restricted := containing(object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{
		"name": namespace, "labels": object{"pod-security.kubernetes.io/enforce": "restricted"}}})
	bare, with := made(t), complete(t)
	for _, c := range []struct {
		attempt
		message string
	}{
		{attempt{chart: with, release: "metaparticle", namespace: "default"}, "WrongNamespace: the policies name the namespace metaparticle-system, and the release is for default"},
		{attempt{chart: bare, release: "metaparticle", namespace: namespace}, "NoRegistry: "},
		{attempt{chart: with, release: "mine", namespace: namespace, cluster: theirs}, "SecondRelease: the cluster has the release theirs"},
		{attempt{chart: with, release: "theirs", namespace: namespace, cluster: theirs}, ""},
		{attempt{chart: with, release: "mine", namespace: namespace, cluster: kustomized}, ""},
		{attempt{chart: with, release: "mine", namespace: namespace, cluster: restricted}, ""},
		{attempt{chart: with, release: "mine", namespace: namespace, cluster: restricted, values: "hostNetwork: true"}, "NamespaceRestricted: "},
	} {
		_, err := c.render()
		if c.message == "" {
			assert.NoError(t, err)
			continue
		}
		assert.ErrorContains(t, err, c.message)
	}
}

// TestHelmDeletesHookObjectsAfterASuccessfulHook checks the annotation that makes Helm delete each object of a
// hook after the hook has succeeded.
func TestHelmDeletesHookObjectsAfterASuccessfulHook(t *testing.T) {
	hooks := render(t, "").hooks
	kinds := map[string]int{}
	for _, h := range hooks {
		kinds[h["kind"].(string)]++
		assert.Equal(t, "before-hook-creation,hook-succeeded", field(t, h, "metadata", "annotations", "helm.sh/hook-delete-policy"), name(h))
	}
	assert.Equal(t, map[string]int{"Namespace": 1, "ServiceAccount": 3, "Role": 1, "RoleBinding": 1, "ClusterRole": 2, "ClusterRoleBinding": 2, "Pod": 1, "Job": 2}, kinds)
}

// TestHelmHooksLackTheRightToWriteLeases checks that no hook can act as an agent.
func TestHelmHooksLackTheRightToWriteLeases(t *testing.T) {
	for _, h := range render(t, "").hooks {
		rules, _ := h["rules"].([]any)
		for _, rule := range rules {
			verbs := field(t, rule, "verbs").([]any)
			assert.NotContains(t, verbs, "*", name(h))
			assert.NotContains(t, verbs, "patch", name(h))
			if slices.Contains(verbs, any("update")) {
				assert.Equal(t, []any{"metaparticle"}, field(t, rule, "resourceNames"), name(h))
			}
			if slices.Contains(verbs, any("create")) {
				assert.Equal(t, "metaparticle-test", field(t, h, "metadata", "namespace"), name(h))
			}
		}
	}
}

func TestHelmNotesNameTheCommandThatEnablesInjection(t *testing.T) {
	assert.Contains(t, render(t, "").notes, "kubectl label namespace NAMESPACE metaparticle.io/injection=enabled")
}

// Without the claims all replicas run at once, so their pods must end first.
func TestHelmNotesEndPodsBeforeRemovalOfClaims(t *testing.T) {
	_, advice, found := strings.Cut(render(t, "").notes, "Before you uninstall")
	require.True(t, found)
	scaling, removal, found := strings.Cut(advice, "remove")
	require.True(t, found, removal)
	assert.Contains(t, scaling, "scale each annotated workload to 0, and wait")
}

func TestHelmLintFindsNoWarning(t *testing.T) {
	values, err := chartutil.ReadValues([]byte("image: {registry: " + registry + "}"))
	require.NoError(t, err)
	for _, message := range lint.All("../../charts/metaparticle", values, namespace, true).Messages {
		assert.Less(t, message.Severity, support.InfoSev, message.Error())
	}
}
