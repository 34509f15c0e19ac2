// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// A later webhook adds a claim's annotation to a pod that our webhook has admitted as unannotated.
// The API server does not call our webhook again, so the policy must refuse the pod.
func TestClaimAddedByALaterWebhookIsRefused(t *testing.T) {
	cluster.NeedLab(t, "its webhook is an image of the tests")
	t.Parallel()
	s := space.New(t, func(n *corev1.Namespace) { n.Labels["e2e-later"] = "true" })
	// The later webhook runs in another namespace, so that the later webhook does not annotate
	// its own pod.
	served := space.New(t)
	authority := laterWebhook(served)
	// The API server calls webhooks in the order of their names, so the API server calls
	// the later webhook after ours.
	register(served, "zz-"+s.Namespace, "/", s.Namespace, authority)

	s.Await(space.StartTimeout, "the later webhook is called", func() bool {
		_, err := webhook.Try(s, app.Bare(s, "late", nil))
		return apierrors.IsForbidden(err)
	})
	webhook.Refused(s, app.Bare(s, "late", nil), "NotInjected: the pod has metaparticle.io/singleton, but no gate was injected: ")
	webhook.Refused(s, app.Bare(s, "late", nil), "another webhook added the annotation after ours had passed")
}

// register configures the API server to call the foreign webhook of this space for the
// pods of a namespace.
func register(s *space.Space, name, path, namespace string, authority []byte) {
	s.Helper()
	again, fail, none := admissionv1.NeverReinvocationPolicy, admissionv1.Fail, admissionv1.SideEffectClassNone
	configurations := cluster.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err := configurations.Create(s.Context(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "later.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none,
			FailurePolicy: &fail, ReinvocationPolicy: &again,
			ClientConfig: admissionv1.WebhookClientConfig{CABundle: authority,
				Service: &admissionv1.ServiceReference{Namespace: s.Namespace, Name: "later", Path: &path}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	s.Cleanup(func() { assert.NoError(s, configurations.Delete(context.Background(), name, metav1.DeleteOptions{})) })
}

// laterWebhook runs a foreign webhook behind a Service, and returns the certificate by which the
// API server trusts it.
func laterWebhook(s *space.Space) []byte {
	s.Helper()
	certificate, key := selfSigned(s.T, "later."+s.Namespace+".svc")
	_, err := s.Client.CoreV1().Secrets(s.Namespace).Create(s.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "later"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	pod := app.Bare(s, "later", nil)
	pod.Spec.Containers[0].Args = []string{"-listen=:8443", "-annotate=/tls"}
	pod.Spec.Containers[0].Ports = nil
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "tls", MountPath: "/tls"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: "later"},
	}}}
	_, err = s.Client.CoreV1().Pods(s.Namespace).Create(s.Context(), pod, metav1.CreateOptions{})
	require.NoError(s, err)
	_, err = s.Client.CoreV1().Services(s.Namespace).Create(s.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "later"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "later"},
			Ports: []corev1.ServicePort{{Port: 443, TargetPort: intstr.FromInt32(8443)}}},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	s.Await(space.StartTimeout, "the later webhook runs", func() bool {
		now := s.Pod("later")
		return now != nil && status.Ready(now)
	})
	return certificate
}

// selfSigned returns a new certificate for a name, and its key.
func selfSigned(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}
