// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
)

// web returns a pod with a gated container, and a sidecar that is not gated. The agent's arguments are
// those of the webhook, with the given ports to forward.
func web(ports api.Ports, change func(*api.RunArgs)) *corev1.Pod {
	args := api.DefaultRunArgs()
	args.Ports = ports
	change(&args)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{"app": "web", "tier": "front"}},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: api.AgentContainer, RestartPolicy: &always, Args: args.Args()}},
			Containers: []corev1.Container{
				{Name: "web", Command: shimCommand, Ports: []corev1.ContainerPort{
					{Name: "http", ContainerPort: 8080}, {Name: "metrics", ContainerPort: 9090}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
				}},
				{Name: "proxy", Ports: []corev1.ContainerPort{{Name: "proxy", ContainerPort: 15000}}},
			},
		},
	}
}

func TestServiceIsRefusedIfStandbysDoNotForwardItsPort(t *testing.T) {
	forwards := api.Ports{{Number: 8080}, {Number: 53, UDP: true}, {Number: 7000, Probed: true}}
	number, name := intstr.FromInt32, intstr.FromString
	for test, c := range map[string]struct {
		port    corev1.ServicePort
		service func(*corev1.ServiceSpec)
		args    func(*api.RunArgs)
		want    int
	}{
		"forwarded":              {port: corev1.ServicePort{Port: 80, TargetPort: number(8080)}},
		"forwarded by its name":  {port: corev1.ServicePort{Port: 80, TargetPort: name("http")}},
		"probed":                 {port: corev1.ServicePort{Port: 80, TargetPort: number(7000)}},
		"UDP":                    {port: corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}},
		"UDP by its name":        {port: corev1.ServicePort{Port: 5353, TargetPort: name("dns"), Protocol: corev1.ProtocolUDP}},
		"TCP of a UDP port":      {port: corev1.ServicePort{Port: 53}, want: 53},
		"not declared":           {port: corev1.ServicePort{Port: 80, TargetPort: number(3000)}, want: 3000},
		"the Service's own port": {port: corev1.ServicePort{Port: 3000}, want: 3000},
		"left out":               {port: corev1.ServicePort{Port: 80, TargetPort: name("metrics")}, want: 9090},
		"of no container":        {port: corev1.ServicePort{Port: 80, TargetPort: name("other")}},
		"of the sidecar":         {port: corev1.ServicePort{Port: 80, TargetPort: number(15000)}},
		"of the agent":           {port: corev1.ServicePort{Port: api.AgentPort}},
		"headless":               {port: corev1.ServicePort{Port: 3000}, service: func(s *corev1.ServiceSpec) { s.ClusterIP = corev1.ClusterIPNone }},
		"external":               {port: corev1.ServicePort{Port: 3000}, service: func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeExternalName }},
		"without a selector":     {port: corev1.ServicePort{Port: 3000}, service: func(s *corev1.ServiceSpec) { s.Selector = nil }},
		"of other pods":          {port: corev1.ServicePort{Port: 3000}, service: func(s *corev1.ServiceSpec) { s.Selector["tier"] = "back" }},
		"only holders are Ready": {port: corev1.ServicePort{Port: 3000}, args: func(r *api.RunArgs) { r.Readiness = api.ReadinessHolder }},
		"the gate readiness":     {port: corev1.ServicePort{Port: 3000}, args: func(r *api.RunArgs) { r.Gate = api.GateReadiness }},
		"shards without ports":   {port: corev1.ServicePort{Port: 8080}, args: func(r *api.RunArgs) { r.Readiness, r.Ports = api.ReadinessAll, nil }, want: 8080},
	} {
		if c.args == nil {
			c.args = func(*api.RunArgs) {}
		}
		pod := web(forwards, c.args)
		other := pod.DeepCopy()
		service := corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{c.port}}}
		if c.service != nil {
			c.service(&service.Spec)
		}
		check := func(how string) {
			got := 0
			for _, r := range Refused([]corev1.Service{service}, []*corev1.Pod{pod, other}) {
				got = r.Number
			}
			assert.Equal(t, c.want, got, "%s, %s", test, how)
		}
		check("as it is")
		pod.Spec, other.Spec = Strip(&pod.Spec), Strip(&other.Spec)
		check("as the cache keeps it")
	}
}

func TestPodThatIsAloneRefusesNoService(t *testing.T) {
	service := corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 3000}}}}
	pod := web(nil, func(*api.RunArgs) {})
	gone := pod.DeepCopy()
	gone.DeletionTimestamp = &metav1.Time{}
	assert.Empty(t, Refused([]corev1.Service{service}, []*corev1.Pod{pod, gone}))
}

func TestStripBoundsThePortsOfAPod(t *testing.T) {
	pod := web(api.Ports{{Number: 8080}}, func(*api.RunArgs) {})
	for i := range int32(10_000) {
		pod.Spec.Containers[1].Ports = append(pod.Spec.Containers[1].Ports, corev1.ContainerPort{Name: strings.Repeat("x", 15), ContainerPort: i})
	}
	kept := Strip(&pod.Spec)
	assert.Len(t, kept.InitContainers[0].Ports, maxPorts-3)
}
