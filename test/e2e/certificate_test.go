// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"
)

// renewalTimeout is for the kubelet to bring a Secret to its pods, which it
// does once in a minute or so, and for the webhook to see it.
const renewalTimeout = 3 * time.Minute

func TestCertificateRenewedWhilePodsAreCreated(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	before := secretCertificate(t)
	renew(t)
	var tried int
	deadline := time.Now().Add(renewalTimeout)
	served := map[string]bool{}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for n := 0; !allServe(served, secretCertificate(t), before); n++ {
		require.True(t, time.Now().Before(deadline), "the webhook does not serve the renewed certificate: %v", served)
		// The certificate of each replica every second or so; a pod every time.
		if n%20 == 0 {
			served = servedCertificates(t)
		}
		_, err := s.try(s.bare(fmt.Sprintf("pod-%d", n), claims))
		require.NoError(t, err, "after %d pods", tried)
		tried++
		<-ticker.C
	}
	t.Logf("%d pods while the certificate was renewed", tried)
	assert.Greater(t, tried, 0)
}

func allServe(served map[string]bool, now, before string) bool {
	return now != before && len(served) == 1 && served[now]
}

// secretCertificate is the serial number of the certificate in the Secret.
func secretCertificate(t *testing.T) string {
	t.Helper()
	d := webhookDeployment(t)
	for _, v := range d.Spec.Template.Spec.Volumes {
		if v.Secret == nil {
			continue
		}
		secret, err := cluster.client.CoreV1().Secrets(systemNamespace).Get(t.Context(), v.Secret.SecretName, metav1.GetOptions{})
		require.NoError(t, err)
		block, _ := pem.Decode(secret.Data["tls.crt"])
		require.NotNil(t, block)
		certificate, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		return certificate.SerialNumber.String()
	}
	require.Fail(t, "the webhook mounts no Secret")
	return ""
}

// servedCertificates are the serial numbers that the webhook's pods serve.
func servedCertificates(t *testing.T) map[string]bool {
	t.Helper()
	served := map[string]bool{}
	for _, pod := range webhookPods(t) {
		served[servedCertificate(t, pod.Name)] = true
	}
	return served
}

// servedCertificate is what one pod serves now, or why nobody knows: a stream that
// fails is asked for again.
func servedCertificate(t *testing.T, pod string) string {
	t.Helper()
	dial, end, err := dialWebhook(t, pod)
	if err != nil {
		return err.Error()
	}
	defer end()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	conn, err := dial(ctx, "tcp", "")
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// dialWebhook connects to one pod of the webhook, by kubectl port-forward, until
// the second answer is called.
func dialWebhook(t *testing.T, pod string) (dial dialer, end func(), err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kubectlTimeout)
	cmd := kubectl(ctx, systemNamespace, "port-forward", "pod/"+pod, ":10250")
	end = sync.OnceFunc(func() { cancel(); _ = cmd.Wait() })
	t.Cleanup(end)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	// Forwarding from 127.0.0.1:12345 -> 10250
	line, err := bufio.NewReader(out).ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) < 3 {
		end()
		return nil, nil, fmt.Errorf("port-forward to %s: %q, %w", pod, line, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	secured := tls.Dialer{Config: &tls.Config{
		ServerName: webhookName + "." + systemNamespace + ".svc", InsecureSkipVerify: true, //nolint:gosec // It is looked at, not trusted.
	}}
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return secured.DialContext(ctx, "tcp", fields[2])
	}, end, nil
}

// webhookPods are the webhook's pods.
func webhookPods(t *testing.T) []corev1.Pod {
	t.Helper()
	pods, err := cluster.client.CoreV1().Pods(systemNamespace).
		List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + webhookName})
	require.NoError(t, err)
	return slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil || !ready(&pod) })
}

// renew asks cert-manager for a new certificate now, as cmctl renew does.
func renew(t *testing.T) {
	t.Helper()
	client, err := dynamic.NewForConfig(cluster.config)
	require.NoError(t, err)
	certificates := client.Resource(schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}).
		Namespace(systemNamespace)
	// cert-manager writes there as well.
	require.NoError(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		certificate, err := certificates.Get(t.Context(), webhookName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		conditions, _, err := unstructured.NestedSlice(certificate.Object, "status", "conditions")
		if err != nil {
			return err
		}
		conditions = append(conditions, map[string]any{
			"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "renewed by a test",
			"lastTransitionTime": time.Now().UTC().Format(time.RFC3339), "observedGeneration": certificate.GetGeneration(),
		})
		if err := unstructured.SetNestedSlice(certificate.Object, conditions, "status", "conditions"); err != nil {
			return err
		}
		_, err = certificates.UpdateStatus(t.Context(), certificate, metav1.UpdateOptions{})
		return err
	}))
}
