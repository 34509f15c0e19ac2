// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// renewalTimeout bounds the time until the webhook serves a renewed certificate. The kubelet
// updates the mounted Secret with the certificate about once a minute.
const renewalTimeout = 3 * time.Minute

func TestPodsAreAdmittedDuringCertificateRenewal(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	before := secretCertificate(t)
	renew(t)
	var tried int
	deadline := time.Now().Add(renewalTimeout)
	served := map[string]bool{}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for n := 0; !allServe(served, secretCertificate(t), before); n++ {
		require.True(t, time.Now().Before(deadline), "the webhook does not serve the renewed certificate: %v", served)
		// Each round proposes a pod. One round of twenty, about once a second, also reads
		// the certificates that the replicas serve.
		if n%20 == 0 {
			served = servedCertificates(t)
		}
		_, err := webhook.Try(s, app.Bare(s, fmt.Sprintf("pod-%d", n), webhook.Claims))
		require.NoError(t, err, "after %d pods", tried)
		tried++
		<-ticker.C
	}
	t.Logf("%d pods while the certificate was renewed", tried)
	assert.Greater(t, tried, 0)
}

// allServe reports whether all replicas serve the new certificate.
func allServe(served map[string]bool, now, before string) bool {
	return now != before && len(served) == 1 && served[now]
}

// secretCertificate returns the serial number of the certificate in the Secret.
func secretCertificate(t *testing.T) string {
	t.Helper()
	d := webhook.Deployment(t)
	for _, v := range d.Spec.Template.Spec.Volumes {
		if v.Secret == nil {
			continue
		}
		secret, err := cluster.Client.CoreV1().Secrets(webhook.Namespace).Get(t.Context(), v.Secret.SecretName, metav1.GetOptions{})
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

// servedCertificates returns the serial numbers of the certificates that the webhook's
// pods serve.
func servedCertificates(t *testing.T) map[string]bool {
	t.Helper()
	served := map[string]bool{}
	for _, pod := range webhook.Pods(t) {
		served[servedCertificate(t, pod.Name)] = true
	}
	return served
}

// servedCertificate returns the serial number of the certificate that one pod serves now.
// If the connection fails, the result is the error's text, and the caller tries again.
func servedCertificate(t *testing.T, pod string) string {
	t.Helper()
	dial, end, err := webhook.Dial(t, pod)
	if err != nil {
		return err.Error()
	}
	defer end()
	ctx, cancel := context.WithTimeout(t.Context(), space.Soon)
	defer cancel()
	conn, err := dial(ctx, "tcp", "")
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// renew requests a new certificate from cert-manager, as cmctl renew does.
func renew(t *testing.T) {
	t.Helper()
	client, err := dynamic.NewForConfig(cluster.Config)
	require.NoError(t, err)
	certificates := client.Resource(schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}).
		Namespace(webhook.Namespace)
	// cert-manager may write the certificate's status at the same time, so the test repeats its
	// write after a conflict.
	require.NoError(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		certificate, err := certificates.Get(t.Context(), webhook.Name, metav1.GetOptions{})
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
