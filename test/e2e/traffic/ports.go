// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/client"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// asked is the time for which the tests of this file send requests. Of three Ready pods, two are standbys, so
// they get two of three requests to a Service.
const asked = 2 * time.Second

// serviceWith creates a Service of the application, and waits until all pods are behind it.
func serviceWith(h holder.Holder, ports ...corev1.ServicePort) *corev1.Service {
	h.Helper()
	service, err := h.Client.CoreV1().Services(h.Namespace).Create(h.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: h.App.Name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": h.App.Name}, Ports: ports},
	}, metav1.CreateOptions{})
	require.NoError(h, err)
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+h.App.Name, kubectl.RolloutTimeout)
	h.Await(space.StartTimeout, "all pods are behind the Service", func() bool { return len(app.Endpoints(h.Space, service)) == 3 })
	return service
}

// answersAll sends requests to the address for a while, and requires an answer to each of them. The first
// client does not count, because the node may learn of the Service late.
func answersAll(h holder.Holder, kind, address string) {
	h.Helper()
	var sum client.Summary
	for range 2 {
		requests := client.Start(h.Space, h.Lab, h.Before.Node, kind, address)
		h.Await(space.StartTimeout, "the Service answers", requests.Answered)
		began := time.Now()
		h.Await(space.StartTimeout, "the time of the requests is over", func() bool { return time.Since(began) > asked })
		sum = requests.Stop()
	}
	assert.Empty(h, sum.Failed, kind)
	assert.Greater(h, sum.Answered, 30, kind)
}

// Many pods declare no port, and only a probe names the port. Resolvers use UDP, with a port of their own for
// each query.
//
// docs/reference/compatibility.md: pod/ports-udp carried
// docs/reference/compatibility.md: pod/ports-undeclared carried
func TestStandbysForwardUndeclaredAndUDPPorts(t *testing.T) {
	t.Parallel()
	a := app.Lasting("resolver")
	a.Args = []string{"-datagrams=:5353"}
	a.Edit = func(template *corev1.PodTemplateSpec) {
		c := &template.Spec.Containers[0]
		c.Ports = []corev1.ContainerPort{{ContainerPort: 5353, Protocol: corev1.ProtocolUDP}}
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 2, ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)},
		}}
	}
	h := holder.Deploy(t, a, "it needs a client on a node")
	service := serviceWith(h, corev1.ServicePort{Name: "web", Port: 80, TargetPort: intstr.FromInt32(8080)},
		corev1.ServicePort{Name: "dns", Port: 53, TargetPort: intstr.FromInt32(5353), Protocol: corev1.ProtocolUDP})
	answersAll(h, client.Anew, service.Spec.ClusterIP)
	answersAll(h, client.Query, net.JoinHostPort(service.Spec.ClusterIP, "53"))
	assert.Nil(t, h.Event("Service", service.Name, "ServiceNotForwarded"))
}

// A port that the list leaves out refuses connections in a standby, so Prometheus does not get the holder's
// series from it. A Service of such a port gets an Event.
//
// docs/reference/compatibility.md: pod/ports-listed carried
func TestStandbyRefusesThePortThatIsLeftOut(t *testing.T) {
	t.Parallel()
	a := app.Lasting("scraped")
	a.Annotations[api.PortsAnnotation] = "8080"
	a.Edit = func(template *corev1.PodTemplateSpec) {
		c := &template.Spec.Containers[0]
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: "metrics", ContainerPort: 9090})
	}
	h := holder.Deploy(t, a, "it needs a client on a node")
	service := serviceWith(h, corev1.ServicePort{Name: "web", Port: 80, TargetPort: intstr.FromString("http")},
		corev1.ServicePort{Name: "metrics", Port: 9090, TargetPort: intstr.FromString("metrics")})
	h.Await(space.StartTimeout, "an Event about the Service", func() bool { return h.Event("Service", service.Name, "ServiceNotForwarded") != nil })
	all := h.Pods(h.App.Name)
	i := slices.IndexFunc(all, func(pod *corev1.Pod) bool { return pod.Name != h.Victim.Name })
	require.NotEqual(t, -1, i)
	answersAll(h, client.Anew, net.JoinHostPort(all[i].Status.PodIP, "8080"))
	scrapes := client.Start(h.Space, h.Lab, h.Before.Node, client.Anew, net.JoinHostPort(all[i].Status.PodIP, "9090"))
	began := time.Now()
	h.Await(space.StartTimeout, "some scrapes", func() bool { return time.Since(began) > time.Second })
	sum := scrapes.Stop()
	assert.Zero(t, sum.Answered)
	assert.Positive(t, sum.Refused())
	assert.Len(t, sum.Failed, sum.Refused(), "no scrape waits")
}
