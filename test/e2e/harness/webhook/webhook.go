// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// These are the names of the installed objects in manifests/.
const (
	Namespace     = "metaparticle-system"
	Name          = "metaparticle-webhook"
	Configuration = "metaparticle"
)

// Deployment returns the webhook's Deployment.
func Deployment(t *testing.T) *appsv1.Deployment {
	t.Helper()
	d, err := cluster.Client.AppsV1().Deployments(Namespace).Get(context.Background(), Name, metav1.GetOptions{})
	require.NoError(t, err, "make install")
	return d
}

// Scale sets the webhook's replicas, and waits until its Service has as many ready endpoints as
// replicas.
func Scale(t *testing.T, replicas int32) {
	t.Helper()
	ctx := context.Background()
	deployments := cluster.Client.AppsV1().Deployments(Namespace)
	// The Deployment's controller also writes the Deployment, so an update could
	// conflict. Scale sends a patch, as kubectl scale does.
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := deployments.Patch(ctx, Name, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return endpoints(ctx) == int(replicas) }, space.StartTimeout, 10*space.CheckInterval)
}

// TakeAway removes the webhook's replicas until the test ends, and waits until they are gone, because a replica
// that is ending still answers on its open connections.
func TakeAway(t *testing.T) {
	t.Helper()
	Scale(t, 0)
	t.Cleanup(func() { Scale(t, 2) })
	require.Eventually(t, func() bool {
		pods, err := cluster.Client.CoreV1().Pods(Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + Name})
		return err == nil && len(pods.Items) == 0
	}, space.StartTimeout, 10*space.CheckInterval)
}

// endpoints returns the number of ready endpoints of the webhook's Service, or -1 after an error.
func endpoints(ctx context.Context) (ready int) {
	list, err := cluster.Client.DiscoveryV1().EndpointSlices(Namespace).
		List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + Name})
	if err != nil {
		return -1
	}
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && *e.Conditions.Ready {
				ready++
			}
		}
	}
	return ready
}

// Dialer opens a TLS connection to one pod of the webhook.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Dial starts kubectl port-forward to one pod of the webhook. The returned dialer works until the
// returned function "end" is called.
func Dial(t *testing.T, pod string) (dial Dialer, end func(), err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kubectl.Timeout)
	cmd := kubectl.Command(ctx, Namespace, "port-forward", "pod/"+pod, ":10250")
	end = sync.OnceFunc(func() { cancel(); _ = cmd.Wait() })
	t.Cleanup(end)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	// The first line has a local address: Forwarding from 127.0.0.1:12345 -> 10250
	line, err := bufio.NewReader(out).ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) < 3 {
		end()
		return nil, nil, fmt.Errorf("port-forward to %s: %q, %w", pod, line, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	secured := tls.Dialer{Config: &tls.Config{
		ServerName: Name + "." + Namespace + ".svc", InsecureSkipVerify: true, //nolint:gosec // The caller reads the certificate and does not trust it.
	}}
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return secured.DialContext(ctx, "tcp", fields[2])
	}, end, nil
}

// Pods returns the webhook's Ready pods.
func Pods(t *testing.T) []corev1.Pod {
	t.Helper()
	pods, err := cluster.Client.CoreV1().Pods(Namespace).
		List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + Name})
	require.NoError(t, err)
	return slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil || !status.Ready(&pod) })
}
