// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// forgery proposes pods in a namespace that has opted in, while the webhook sees none of
// these pods. A refusal names only one of the policies that refuse a pod. So the policy
// "gate" also answers with a warning for each pod that it refuses.
type forgery struct {
	*space.Space
	warnings *said
}

// forge keeps the webhook out of a space, and makes the policy "gate" add a warning to each of its
// refusals in that space.
func forge(s *space.Space) forgery {
	s.Helper()
	keepWebhookOut(s)
	f := forgery{s, new(said)}
	config := rest.CopyConfig(cluster.Config)
	config.WarningHandler = f.warnings
	client, err := kubernetes.NewForConfig(config)
	require.NoError(s, err)
	s.Client = client
	bindings := cluster.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	_, err = bindings.Create(s.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.Namespace},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        "metaparticle-gate",
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Warn},
			MatchResources: &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{
				MatchLabels: map[string]string{corev1.LabelMetadataName: s.Namespace},
			}},
		},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	s.Cleanup(func() { assert.NoError(s, bindings.Delete(context.Background(), s.Namespace, metav1.DeleteOptions{})) })
	s.Await(space.StartTimeout, "the webhook sees nothing, the policy is heard", func() bool {
		_, err := webhook.Try(s, app.Bare(s, "claims", webhook.Claims))
		return strings.Contains(f.warnings.taken(), "NotInjected: ") && err != nil && strings.Contains(err.Error(), "NotInjected: ")
	})
	return f
}

// keepWebhookOut changes the webhook's configuration, so that the API server calls the
// webhook for no pod of this namespace until the test ends.
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
}

// complete returns a pod of two containers with all parts of its gate, as the webhook adds these
// parts. A test can create the pod by hand.
func complete(s *space.Space, gate api.Gate) *corev1.Pod {
	s.Helper()
	pod := app.Bare(s, "forged", map[string]string{api.LockAnnotation: "forged", api.GateAnnotation: string(gate)})
	helper := *pod.Spec.Containers[0].DeepCopy()
	helper.Name, helper.Ports = "helper", nil
	pod.Spec.Containers = append(pod.Spec.Containers, helper)
	return webhook.Gated(s, pod)
}

// initContainer returns a pod's init container by its name.
func initContainer(pod *corev1.Pod, name string) *corev1.Container {
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
	return &pod.Spec.InitContainers[i]
}

// without returns an edit that removes an init container.
func without(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.InitContainers = slices.DeleteFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
	}
}

// ordinary makes the agent an ordinary init container instead of a sidecar.
func ordinary(pod *corev1.Pod) {
	c := initContainer(pod, api.AgentContainer)
	c.RestartPolicy, c.RestartPolicyRules, c.Lifecycle = nil, nil, nil
}

// sidecar returns an edit that makes an init container a sidecar.
func sidecar(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		always := corev1.ContainerRestartPolicyAlways
		initContainer(pod, name).RestartPolicy = &always
	}
}

// args returns an edit that replaces the arguments of an init container.
func args(name string, args ...string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { initContainer(pod, name).Args = args }
}

// shared returns an edit that replaces the gate's volume, or removes the volume if source is nil.
func shared(source *corev1.VolumeSource) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == api.Volume })
		if source != nil {
			pod.Spec.Volumes[i].VolumeSource = *source
			return
		}
		pod.Spec.Volumes = slices.Delete(pod.Spec.Volumes, i, i+1)
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				list[i].VolumeMounts = slices.DeleteFunc(list[i].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == api.Volume })
			}
		}
	}
}

var nodesOwn = &corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}

// The map "missing" has edits of a pod. Each edit breaks the pod's gate, whichever gate the pod
// has.
var missing = map[string]func(*corev1.Pod){
	"no agent":             without(api.AgentContainer),
	"an agent that ends":   ordinary,
	"no slots":             func(pod *corev1.Pod) { delete(pod.Annotations, api.SlotsAnnotation) },
	"slots that are none":  func(pod *corev1.Pod) { pod.Annotations[api.SlotsAnnotation] = "" },
	"no label":             func(pod *corev1.Pod) { delete(pod.Labels, api.GatedLabel) },
	"a label that says no": func(pod *corev1.Pod) { pod.Labels[api.GatedLabel] = "false" },
	"another gate asked for": func(pod *corev1.Pod) {
		pod.Annotations[api.GateAnnotation] = another[pod.Annotations[api.GateAnnotation]]
	},
}

// another maps each gate to a different gate.
var another = map[string]string{
	string(api.GateContainer): string(api.GatePod),
	string(api.GatePod):       string(api.GateReadiness),
	string(api.GateReadiness): string(api.GateContainer),
}

// The map "missingOf" has, for each gate, further edits that break this gate.
var missingOf = map[api.Gate]map[string]func(*corev1.Pod){
	api.GateContainer: {
		"no volume":                 shared(nil),
		"a volume of the node":      shared(nodesOwn),
		"no shim":                   func(pod *corev1.Pod) { pod.Spec.Containers[0].Command, pod.Spec.Containers[1].Command = nil, nil },
		"no shim in the second":     func(pod *corev1.Pod) { pod.Spec.Containers[1].Command = nil },
		"a shim that is no shim":    func(pod *corev1.Pod) { pod.Spec.Containers[1].Command[1] = "handle" },
		"no shim where named":       namedWithoutShim,
		"no shim in init container": initWithoutShim,
	},
	api.GatePod: {
		"no volume":               shared(nil),
		"a volume of the node":    shared(nodesOwn),
		"no turn":                 without(api.TurnContainer),
		"a turn that is none":     args(api.TurnContainer, "wait"),
		"a turn that never ends":  sidecar(api.TurnContainer),
		"no wait":                 without(api.WaitContainer),
		"a wait that is none":     args(api.WaitContainer, "turn"),
		"a wait for nothing":      func(pod *corev1.Pod) { initContainer(pod, api.WaitContainer).Command = []string{"/app"} },
		"a wait that nobody ends": sidecar(api.WaitContainer),
		"in another order":        func(pod *corev1.Pod) { slices.Reverse(pod.Spec.InitContainers) },
		"a loss restarts nothing": func(pod *corev1.Pod) { initContainer(pod, api.AgentContainer).RestartPolicyRules = nil },
		"another end restarts all": func(pod *corev1.Pod) {
			initContainer(pod, api.AgentContainer).RestartPolicyRules[0].ExitCodes.Values[0]++
		},
		"a loss restarts all but it": func(pod *corev1.Pod) {
			initContainer(pod, api.AgentContainer).RestartPolicyRules[0].ExitCodes.Operator = corev1.ContainerRestartRuleOnExitCodesOpNotIn
		},
	},
	api.GateReadiness: {
		"no readiness gate": func(pod *corev1.Pod) { pod.Spec.ReadinessGates = nil },
		"another condition": func(pod *corev1.Pod) { pod.Spec.ReadinessGates[0].ConditionType = "example.com/ready" },
		"no argument":       args(api.AgentContainer, "run"),
		"another argument":  args(api.AgentContainer, "run", "-gate=pod"),
	},
}

// admitted returns the edits of missingOf for the gates that this version of Kubernetes admits.
func admitted() map[api.Gate]map[string]func(*corev1.Pod) {
	gates := maps.Clone(missingOf)
	if !cluster.Has(cluster.RestartAllContainers) {
		delete(gates, api.GatePod)
	}
	return gates
}

// namedWithoutShim adds an ungated container. The annotation of the gated containers names this
// container, too.
func namedWithoutShim(pod *corev1.Pod) {
	third := *pod.Spec.Containers[1].DeepCopy()
	third.Name, third.Command = "third", nil
	pod.Spec.Containers = append(pod.Spec.Containers, third)
	pod.Annotations[api.ContainersAnnotation] = "app, third"
}

// initWithoutShim adds an ungated init container. The agent's arguments name this container as a
// gated one.
func initWithoutShim(pod *corev1.Pod) {
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "migrate", Image: cluster.Image})
	agent := initContainer(pod, api.AgentContainer)
	agent.Args = append(agent.Args, "-init-containers=other,migrate")
}

// A person wrote or copied the pod, and no webhook has seen it. The policies admit a pod
// with all parts of its gate. The policies refuse a pod that lacks one part, because that
// pod would run beside the holder.
func TestClaimWithAnIncompleteGateIsRefused(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	elsewhere := space.New(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	pods := map[api.Gate]*corev1.Pod{}
	for gate := range admitted() {
		pods[gate] = complete(s, gate)
	}
	f := forge(s)
	for gate, complete := range pods {
		t.Run(string(gate), func(t *testing.T) {
			_, err := webhook.Try(f.Space, complete.DeepCopy())
			require.NoError(t, err, "with all its parts")
			require.Empty(t, f.warnings.taken())
			_, err = webhook.Try(elsewhere, complete.DeepCopy())
			assert.ErrorContains(t, err, "MarksForged: ", "where nothing is injected")
			tests := maps.Clone(missing)
			maps.Copy(tests, missingOf[gate])
			for what, take := range tests {
				t.Run(what, func(t *testing.T) {
					pod := complete.DeepCopy()
					take(pod)
					_, err := webhook.Try(f.Space, pod)
					assert.True(t, apierrors.IsForbidden(err), "%v", err)
					assert.Contains(t, f.warnings.taken(), "NotInjected: the pod has metaparticle.io/lock, but no gate was injected: ")
					if !assert.Error(t, err) {
						return
					}
					_, err = webhook.Try(elsewhere, pod)
					assert.True(t, apierrors.IsForbidden(err), "%v", err)
					// Several policies may refuse the pod, and the API server names only
					// one of them.
					assert.Regexp(t, "NamespaceNotOptedIn: |MarksForged: |Leftover: ", fmt.Sprint(err))
				})
			}
		})
	}
}
