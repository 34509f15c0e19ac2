// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/monitoring"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/software"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// Server is a Prometheus in a pod.
type Server struct {
	*space.Space
	pod     string
	written time.Time // when the test wrote the targets last
}

const port = 9090

// Start starts Prometheus, and waits until Prometheus scrapes the webhooks. The server scrapes and
// evaluates each second. The argument "faster" is the number by which Start divides all durations
// of the rules.
func Start(t *testing.T, faster int) *Server {
	t.Helper()
	cluster.NeedLab(t, "it makes an image of Debian's Prometheus")
	s := &Server{Space: space.New(t)}
	every := regexp.MustCompile(`(_interval): 15s`)
	s.write("prometheus.yaml", every.ReplaceAllString(monitoring.ByFile(monitoring.Configuration), "$1: 1s"))
	s.write("rules.yaml", monitoring.Faster(monitoring.Rules, faster))
	s.discover()
	directory := corev1.HostPathDirectory
	a := app.App{Name: "prometheus", Edit: software.Software{Name: "prometheus", Port: port, Edit: func(p *corev1.PodTemplateSpec) {
		p.Spec.Volumes = []corev1.Volume{{Name: "etc", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: s.Mount(), Type: &directory},
		}}}
		c := &p.Spec.Containers[0]
		c.Args = []string{"--config.file=/etc/metaparticle/prometheus.yaml", "--storage.tsdb.path=/tmp/data"}
		c.VolumeMounts = []corev1.VolumeMount{{Name: "etc", MountPath: "/etc/metaparticle", ReadOnly: true}}
	}}.Template(t, corev1.VolumeSource{})}
	template := app.Template(s.Space, a)
	pod, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: a.Name, Labels: template.Labels}, Spec: template.Spec,
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	s.pod = pod.Name
	s.Await(space.StartTimeout, "Prometheus scrapes both webhooks", func() bool {
		return s.value(`count(up{job="metaparticle-webhook"} == 1)`) == "2"
	})
	return s
}

// write replaces a file of the server in one step, so the server never reads a part of the file.
func (s *Server) write(name, text string) {
	s.Helper()
	file := filepath.Join(s.Dir, name)
	require.NoError(s, os.WriteFile(file+".new", []byte(text), 0o644)) //nolint:gosec // Prometheus has another user.
	require.NoError(s, os.Rename(file+".new", file))
}

// target is an entry in a file of targets: an address, with the labels that the discovery of pods
// would give.
type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// discover writes the targets of both jobs. The targets are those that a discovery of role "pod"
// would find with the selectors of the configuration. The method "discover" writes at most once
// a second.
func (s *Server) discover() {
	s.Helper()
	if time.Since(s.written) < time.Second {
		return
	}
	s.written = time.Now()
	s.targets("metaparticle-agents", "", api.GatedLabel+"="+api.Gated)
	s.targets("metaparticle-webhook", webhook.Namespace, "app.kubernetes.io/name="+webhook.Name)
}

// targets writes the file with the targets of a Prometheus job. If the API server does not
// answer, the file keeps the earlier targets.
func (s *Server) targets(job, namespace, selector string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
	defer cancel()
	pods, err := s.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return
	}
	found := []target{}
	for _, pod := range pods.Items {
		if pod.Status.PodIP == "" {
			continue
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			ports := c.Ports
			if len(ports) == 0 {
				ports = []corev1.ContainerPort{{}}
			}
			for _, p := range ports {
				found = append(found, targetOf(pod, c.Name, p))
			}
		}
	}
	text, err := json.Marshal(found)
	require.NoError(s, err)
	s.write(job+".json", string(text))
}

var notWord = regexp.MustCompile(`\W`)

// targetOf returns the target of one port. A container without ports is a target, too.
func targetOf(pod corev1.Pod, container string, p corev1.ContainerPort) target {
	address, meta := pod.Status.PodIP, "__meta_kubernetes_"
	labels := map[string]string{
		meta + "namespace": pod.Namespace, meta + "pod_name": pod.Name, meta + "pod_phase": string(pod.Status.Phase),
		meta + "pod_ip": pod.Status.PodIP, meta + "pod_host_ip": pod.Status.HostIP, meta + "pod_container_name": container,
	}
	if p.ContainerPort != 0 {
		address = net.JoinHostPort(address, strconv.Itoa(int(p.ContainerPort)))
		labels[meta+"pod_container_port_name"] = p.Name
	}
	for key := range pod.Annotations {
		labels[meta+"pod_annotationpresent_"+notWord.ReplaceAllString(key, "_")] = "true"
	}
	return target{Targets: []string{address}, Labels: labels}
}

// get sends a query to Prometheus through the API server's proxy. The result is false without an
// answer, for example while the API server is slow.
func (s *Server) get(path string, query map[string]string, into any) bool {
	s.discover()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
	defer cancel()
	text, err := s.Client.CoreV1().Pods(s.Namespace).ProxyGet("http", s.pod, strconv.Itoa(port), path, query).DoRaw(ctx)
	return err == nil && json.Unmarshal(text, into) == nil
}

// value returns the value of an expression; empty unless the answer has exactly one value.
func (s *Server) value(expression string) string {
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if !s.get("/api/v1/query", map[string]string{"query": expression}, &answer) || len(answer.Data.Result) != 1 {
		return ""
	}
	value, _ := answer.Data.Result[0].Value[1].(string)
	return value
}

// Alert is an alert that Prometheus reports as pending or firing.
type Alert struct {
	State               string
	Labels, Annotations map[string]string
}

// firing returns the alerts that fire. The result "answered" is false if Prometheus does not
// answer.
func (s *Server) firing() (firing []Alert, answered bool) {
	var answer struct {
		Data struct{ Alerts []Alert }
	}
	answered = s.get("/api/v1/alerts", nil, &answer)
	return slices.DeleteFunc(answer.Data.Alerts, func(a Alert) bool { return a.State != "firing" }), answered
}

// Fires returns a firing alert with the name and the labels, or nil. A label is written NAME=VALUE.
func (s *Server) Fires(name string, labels ...string) *Alert {
	firing, _ := s.firing()
	i := slices.IndexFunc(firing, func(a Alert) bool { return a.is(name, labels) })
	if i < 0 {
		return nil
	}
	return &firing[i]
}

func (a Alert) is(name string, labels []string) bool {
	return a.Labels["alertname"] == name && !slices.ContainsFunc(labels, func(l string) bool {
		key, value, _ := strings.Cut(l, "=")
		return a.Labels[key] != value
	})
}

// AwaitFires waits until an alert with the name and the labels fires.
func (s *Server) AwaitFires(timeout time.Duration, name string, labels ...string) {
	s.Helper()
	var found *Alert
	s.Every(timeout, name+" fires", func() bool {
		found = s.Fires(name, labels...)
		return found != nil
	})
	s.Remark("fires: %s: %s", name, found.Annotations["summary"])
}

// AwaitEnds waits until no alert with the name and the labels fires.
func (s *Server) AwaitEnds(timeout time.Duration, name string, labels ...string) {
	s.Helper()
	s.Every(timeout, name+" ends", func() bool {
		firing, answered := s.firing()
		return answered && !slices.ContainsFunc(firing, func(a Alert) bool { return a.is(name, labels) })
	})
	s.Remark("ended: %s", name)
}

// Silent fails the test if an alert about a workload of the test's namespace fires within d. Prometheus
// also scrapes the pods of other tests, which may cause alerts in their own namespaces.
func (s *Server) Silent(d time.Duration) {
	s.Helper()
	turn := time.NewTicker(200 * time.Millisecond)
	defer turn.Stop()
	for began := time.Now(); time.Since(began) < d; <-turn.C {
		firing, _ := s.firing()
		for _, a := range firing {
			if a.Labels["workload"] != "" {
				require.NotEqual(s, s.Namespace, a.Labels["namespace"], "%v", a)
			}
		}
	}
}

// Every waits until the condition is true, and checks it at most five times a second.
func (s *Server) Every(timeout time.Duration, what string, condition func() bool) {
	s.Helper()
	last, is := time.Time{}, false
	s.Await(timeout, what, func() bool {
		if !is && time.Since(last) > 200*time.Millisecond {
			last, is = time.Now(), condition()
		}
		return is
	})
}
