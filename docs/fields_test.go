// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// structure has the fields of one type of the API.
type structure struct {
	of any
	// at returns the value of the type in a pod.
	at func(*corev1.Pod) any
	// kept are the fields that a gated pod has unchanged, whatever their value. A field of a type
	// that has no structure of its own is kept or not as a whole.
	kept string
	// other says of each other field what becomes of it. "carried ROW" names a row of
	// docs/reference/compatibility.md, and a test that shows it: the application behaves as with the field
	// unchanged. "refused REASON" and "warned REASON" name what a person reads about the values that
	// a gated pod cannot have, and a test shows that, too. "part" is a field with a structure of its
	// own. "server" is a field that the API server sets, or that no new pod may have.
	other map[string]string
}

// fields has all fields of a pod. A new version of k8s.io/api may add a field. Then a person decides
// whether a gated pod keeps the field, and what tells its author if not.
var fields = []structure{
	{
		of: metav1.ObjectMeta{}, at: func(p *corev1.Pod) any { return &p.ObjectMeta },
		kept: "name namespace finalizers",
		other: map[string]string{
			"generateName":    "carried kinds/deployment, refused PodWithoutName",
			"labels":          "carried pod/labels-replaced, warned MarksKept",
			"annotations":     "carried pod/default-container identity/cluster-autoscaler, warned AddressShared",
			"ownerReferences": "carried kinds/custom",
			"selfLink":        "server", "uid": "server", "resourceVersion": "server", "generation": "server", "creationTimestamp": "server",
			"deletionTimestamp": "server", "deletionGracePeriodSeconds": "server", "managedFields": "server",
		},
	},
	{
		of: corev1.PodSpec{}, at: func(p *corev1.Pod) any { return &p.Spec },
		kept: "dnsPolicy serviceAccountName serviceAccount nodeName hostIPC imagePullSecrets hostname subdomain schedulerName " +
			"tolerations hostAliases priorityClassName priority dnsConfig enableServiceLinks preemptionPolicy overhead " +
			"topologySpreadConstraints setHostnameAsFQDN hostUsers schedulingGates resourceClaims hostnameOverride " +
			"schedulingGroup evictionResponders",
		other: map[string]string{
			"volumes":                       "carried identity/cluster-autoscaler, refused NameTaken",
			"initContainers":                "carried pod/init pod/init-gated pod/native-sidecars, refused InitContainer",
			"containers":                    "part",
			"ephemeralContainers":           "server",
			"restartPolicy":                 "carried lifecycle/restart-never lifecycle/restart-on-failure, refused NeverRestarted",
			"terminationGracePeriodSeconds": "carried lifecycle/grace",
			"activeDeadlineSeconds":         "warned WaitingCounts",
			"nodeSelector":                  "refused Windows",
			"automountServiceAccountToken":  "carried identity/restricted, warned TokenInReach",
			"hostNetwork":                   "carried pod/host-network, refused HostNetwork",
			"hostPID":                       "refused SharedProcesses",
			"shareProcessNamespace":         "refused SharedProcesses",
			"securityContext":               "part",
			"affinity":                      "refused Windows",
			"readinessGates":                "carried gates/readiness, refused Leftover",
			"runtimeClassName":              "carried pod/runtime-class",
			"os":                            "refused Windows",
			"resources":                     "carried identity/pod-resources, warned AgentDoesNotFit",
		},
	},
	{
		of: corev1.PodSecurityContext{}, at: func(p *corev1.Pod) any { return made(&p.Spec.SecurityContext) },
		kept:  "seLinuxOptions runAsUser runAsGroup runAsNonRoot supplementalGroups supplementalGroupsPolicy fsGroup fsGroupChangePolicy seccompProfile appArmorProfile seLinuxChangePolicy",
		other: map[string]string{"sysctls": "carried pod/low-ports", "windowsOptions": "refused Windows"},
	},
	{
		of: corev1.Container{}, at: func(p *corev1.Pod) any { return &p.Spec.Containers[0] },
		kept: "workingDir envFrom env resizePolicy terminationMessagePolicy imagePullPolicy stdin stdinOnce tty",
		other: map[string]string{
			"name":                   "refused NameTaken",
			"image":                  "carried command/tag command/digest, refused ImageUnreadable",
			"volumeDevices":          "refused MountTaken",
			"command":                "carried command/command, warned NeedsPID1",
			"args":                   "carried command/args",
			"ports":                  "part",
			"resources":              "carried identity/qos identity/quota",
			"restartPolicy":          "carried lifecycle/restart-rules, refused NeverRestarted",
			"restartPolicyRules":     "carried lifecycle/restart-rules, refused RestartRule",
			"volumeMounts":           "carried lifecycle/once, refused MountTaken, warned OnceWritesPod",
			"livenessProbe":          "part",
			"readinessProbe":         "part",
			"startupProbe":           "part",
			"lifecycle":              "part",
			"terminationMessagePath": "carried lifecycle/termination-messages, refused MountTaken",
			"securityContext":        "part",
		},
	},
	{
		of: corev1.SecurityContext{}, at: func(p *corev1.Pod) any { return made(&p.Spec.Containers[0].SecurityContext) },
		kept:  "capabilities privileged seLinuxOptions runAsUser runAsGroup runAsNonRoot readOnlyRootFilesystem allowPrivilegeEscalation procMount seccompProfile appArmorProfile",
		other: map[string]string{"windowsOptions": "refused Windows"},
	},
	{
		of: corev1.ContainerPort{}, at: func(p *corev1.Pod) any { return &p.Spec.Containers[0].Ports[0] },
		kept:  "name hostPort hostIP",
		other: map[string]string{"containerPort": "carried pod/port-forward, refused PortTaken", "protocol": "carried pod/ports-udp, warned PortNotForwarded"},
	},
	{
		of: corev1.Probe{},
		other: map[string]string{
			"": "part", "initialDelaySeconds": "carried probes/timings", "timeoutSeconds": "carried probes/timings", "periodSeconds": "carried probes/timings",
			"successThreshold": "carried probes/timings", "failureThreshold": "carried probes/timings", "terminationGracePeriodSeconds": "carried lifecycle/grace-of-probe",
		},
	},
	{
		of:    corev1.ProbeHandler{},
		other: map[string]string{"exec": "part", "httpGet": "part", "tcpSocket": "part", "grpc": "part"},
	},
	{of: corev1.ExecAction{}, other: map[string]string{"command": "carried probes/readiness-exec lifecycle/pre-stop-exec, warned NamesPID1"}},
	{
		of: corev1.HTTPGetAction{},
		other: map[string]string{
			"path": "carried probes/readiness-http", "port": "carried probes/named-port, refused Probes", "host": "carried probes/host, refused Probes",
			"scheme": "carried probes/https", "httpHeaders": "carried probes/headers", "protocol": "refused Probes",
		},
	},
	{of: corev1.TCPSocketAction{}, other: map[string]string{"port": "carried probes/readiness-tcp", "host": "refused Probes"}},
	{of: corev1.GRPCAction{}, other: map[string]string{"port": "carried probes/readiness-grpc", "service": "carried probes/readiness-grpc", "mode": "refused Probes"}},
	{of: corev1.SleepAction{}, other: map[string]string{"seconds": "carried lifecycle/pre-stop-sleep"}},
	{
		of:    corev1.Lifecycle{},
		other: map[string]string{"postStart": "part", "preStop": "part", "stopSignal": "carried lifecycle/stop-signal, refused Hooks"},
	},
	{
		of:    corev1.LifecycleHandler{},
		other: map[string]string{"exec": "part", "httpGet": "part", "tcpSocket": "part", "sleep": "part"},
	},
}

// names returns the JSON names of the fields of a type.
func names(of any) []string {
	var all []string
	for field := range reflect.TypeOf(of).Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		all = append(all, name)
	}
	return all
}

// fieldsSection returns the section of docs/reference/compatibility.md about the fields of a pod.
func fieldsSection() string {
	var b strings.Builder
	b.WriteString("\n## 11. Fields of a pod\n\nA field with a reason has values that a gated pod cannot have.\n\n" +
		"| | field | |\n|---|---|---|\n")
	quoted := func(all []string) string { return "`" + strings.Join(all, "` `") + "`" }
	for _, s := range fields {
		by := map[string][]string{"unchanged": strings.Fields(s.kept)}
		for _, name := range names(s.of) {
			var hows []string
			for part := range strings.SplitSeq(s.other[name], ", ") {
				switch word, of, _ := strings.Cut(part, " "); word {
				case "carried":
					hows = append(hows, word)
				case "refused", "warned":
					hows = append(hows, word+": `"+of+"`")
				}
			}
			if how := strings.Join(hows, ", "); how != "" {
				by[how] = append(by[how], name)
			}
		}
		for _, how := range slices.Sorted(maps.Keys(by)) {
			if len(by[how]) > 0 {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", reflect.TypeOf(s.of).Name(), quoted(by[how]), how)
			}
		}
	}
	return b.String()
}

func TestEachFieldOfAPodIsDecided(t *testing.T) {
	shown := map[string]bool{}
	for _, e := range append(ofFunctions(t), ofArchives(t)...) {
		how := strings.NewReplacer(":", "", "`", "").Replace(e.how)
		shown[how+" "+e.row], shown[how] = true, true
	}
	for _, s := range fields {
		kind := reflect.TypeOf(s.of).Name()
		decided := slices.Concat(strings.Fields(s.kept), slices.Collect(maps.Keys(s.other)))
		assert.ElementsMatch(t, names(s.of), decided, "%s: decide what becomes of a new field, and where its author reads that", kind)
		for name, how := range s.other {
			for part := range strings.SplitSeq(how, ", ") {
				word, of, _ := strings.Cut(part, " ")
				switch word {
				case "part", "server":
					assert.Empty(t, of, "%s.%s", kind, name)
				case "carried":
					for row := range strings.FieldsSeq(of) {
						assert.True(t, shown["carried "+row], "%s.%s: no test shows that %s is carried", kind, name, row)
					}
				case "refused", "warned":
					assert.True(t, shown[part], "%s.%s: no test shows %q", kind, name, part)
				default:
					assert.Fail(t, "what is this?", "%s.%s: %s", kind, name, how)
				}
			}
		}
	}
}

// The pod of each case has one field of its own beside those that every pod needs. A gated pod has the
// same value, and causes no warning, whichever gate it has.
func TestGatedPodKeepsFieldsUnchanged(t *testing.T) {
	for _, gate := range []map[string]string{
		{api.SingletonAnnotation: "true"},
		{api.SingletonAnnotation: "true", api.GateAnnotation: string(api.GatePod)},
		{api.SingletonAnnotation: "true", api.GateAnnotation: string(api.GateReadiness)},
		{api.LocalAnnotation: "lock/a"},
		{api.AfterAnnotation: "lock.a"},
	} {
		for _, s := range fields {
			for i, name := range names(s.of) {
				if !slices.Contains(strings.Fields(s.kept), name) {
					continue
				}
				what := fmt.Sprintf("%v: %T.%s", gate, s.of, name)
				pod := &corev1.Pod{
					TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: gate},
					Spec: corev1.PodSpec{Containers: []corev1.Container{{
						Name: "app", Image: "app:1", Command: []string{"app"}, Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
					}}},
				}
				field := func(of *corev1.Pod) reflect.Value { return reflect.ValueOf(s.at(of)).Elem().Field(i) }
				fill(t, field(pod))
				assert.Equal(t, field(pod).Interface(), field(gatedPod(t, pod, what)).Interface(), what)
			}
		}
	}
}

// gatedPod returns the pod as the webhook gates it.
func gatedPod(t *testing.T, pod *corev1.Pod, what string) *corev1.Pod {
	t.Helper()
	raw, err := json.Marshal(pod)
	require.NoError(t, err)
	operations, warnings, err := mutate.Inject(t.Context(), mutate.Subject{
		Raw: raw, Namespace: "shop", Kubernetes: feature.RestartsAll,
		Origin: feature.Origin{Workload: api.Workload{Group: "apps", Kind: "Deployment", Name: "a"}},
	}, mutatetest.AgentImage, mutatetest.Facts{})
	require.NoError(t, err, what)
	assert.Empty(t, warnings, what)
	assert.NotEmpty(t, operations, what)
	gated := new(corev1.Pod)
	require.NoError(t, json.Unmarshal(mutatetest.Apply(t, raw, operations), gated))
	return gated
}

// made returns the value of a pointer, which it sets if the pointer is nil.
func made[T any](at **T) *T {
	if *at == nil {
		*at = new(T)
	}
	return *at
}

// fill sets a value, and all values in it, to something else than the zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	if q, ok := reflect.TypeAssert[*resource.Quantity](v.Addr()); ok {
		*q = resource.MustParse("1")
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key)
		fill(t, value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(t, field)
		}
	default:
		require.Fail(t, "a value of this kind", v.Type().String())
	}
}
