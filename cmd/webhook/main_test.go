// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

func TestWebhookRefusesInvalidFlags(t *testing.T) {
	t.Setenv("AGENT_IMAGE", "agent:1")
	t.Setenv("POD_NAMESPACE", "system")
	s, err := parse([]string{"--plain-http-registry=a:1", "--plain-http-registry", "b",
		"--registry-mirror=docker.io=m:1", "--registry-network=10.1.0.0/16", "--registry-network=fd12::/16"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, "agent:1", s.agentImage)
	assert.Equal(t, []string{"a:1", "b"}, s.registries.PlainHTTP)
	assert.Len(t, s.registries.Mirrors, 1)
	assert.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd12::/16")}, s.registries.Networks)

	for name, args := range map[string][]string{
		"no agent image": {"--agent-image="},
		"no namespace":   {"--namespace="},
		"argument":       {"now"},
		"unknown":        {"--nonsense"},
		"half a mirror":  {"--registry-mirror=docker.io"},
		"no network":     {"--registry-network=10.1.0.0"},
		"no file":        {"--registry-ca=testdata/none.pem"},
	} {
		_, err := parse(args, io.Discard)
		assert.Error(t, err, name)
	}
}

func TestHelpFlagOfWebhookCausesNoError(t *testing.T) {
	require.NoError(t, run(t.Context(), []string{"--help"}, io.Discard))
}

// The webhook must answer before the timeout in the manifest, because only the webhook's own answer
// names a reason. The manifests must also name the webhook's port and paths.
func TestWebhookFlagDefaultsMatchTheManifests(t *testing.T) {
	t.Setenv("AGENT_IMAGE", "agent:1")
	t.Setenv("POD_NAMESPACE", "system")
	s, err := parse(nil, io.Discard)
	require.NoError(t, err)
	var configuration admissionv1.MutatingWebhookConfiguration
	text, err := os.ReadFile("../../manifests/webhookconfiguration.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &configuration))
	for _, w := range configuration.Webhooks {
		assert.Less(t, s.timeout, time.Duration(*w.TimeoutSeconds)*time.Second)
		assert.Contains(t, []string{"/pods", "/workloads"}, *w.ClientConfig.Service.Path)
	}
	var optIn admissionv1.ValidatingWebhookConfiguration
	require.NoError(t, yaml.Unmarshal(bytes.SplitN(text, []byte("\n---\n"), 2)[1], &optIn))
	assert.Equal(t, "/namespaces", *optIn.Webhooks[0].ClientConfig.Service.Path)
	assert.Less(t, s.registries.Budget, s.timeout)
	manifest, err := os.ReadFile("../../manifests/webhook.yaml")
	require.NoError(t, err)
	assert.Contains(t, string(manifest), "{name: webhook, containerPort: 10250}")
	assert.Equal(t, 10250, s.port)
	assert.Contains(t, string(manifest), "--cert-dir="+s.certDir)
	assert.Contains(t, string(manifest), "serviceAccountName: "+s.webhookAccount)
}

func TestForbiddenSecretErrorNamesTheMissingRole(t *testing.T) {
	c := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "pull", nil)
		},
	})
	_, err := secrets{typed{c}, discarded}.Secret(t.Context(), "shop", "pull")
	require.ErrorIs(t, err, errMayNotRead)
	assert.Contains(t, err.Error(), "ClusterRole metaparticle-pull-secrets")
}

var discarded = slog.New(slog.DiscardHandler)

// Callers of the webhook may have no right to know which Secrets exist.
func TestAnswersForMissingAndUnusableSecretsAreEqual(t *testing.T) {
	of := func(name string, kind corev1.SecretType) client.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Type: kind}
	}
	c := fake.NewClientBuilder().WithObjects(of("token", corev1.SecretTypeServiceAccountToken), of("tls", corev1.SecretTypeTLS)).Build()
	away := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return apierrors.NewServiceUnavailable("at 10.0.0.1")
		},
	})
	for name, reader := range map[string]client.Reader{"none": c, "token": c, "tls": c, "away": away} {
		_, err := secrets{typed{reader}, discarded}.Secret(t.Context(), "shop", name)
		assert.Equal(t, errNone, err, name)
		_, err = secrets{typed{reader}, discarded}.PullSecrets(t.Context(), "shop", name)
		assert.Equal(t, errNone, err, name)
	}
	_, err := secrets{typed{fake.NewClientBuilder().WithObjects(of("pull", corev1.SecretTypeDockercfg)).Build()}, discarded}.Secret(t.Context(), "shop", "pull")
	require.NoError(t, err)
}

func TestPullSecretsComeFromTheServiceAccount(t *testing.T) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "till"}}
	account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "one"}, {Name: "two"}}
	names, err := secrets{typed{fake.NewClientBuilder().WithObjects(account).Build()}, discarded}.PullSecrets(t.Context(), "shop", "till")
	require.NoError(t, err)
	assert.Equal(t, []string{"one", "two"}, names)
}

// recorder keeps the object and the reason of each Event.
type recorder chan string

func (r recorder) Eventf(regarding, _ runtime.Object, _, reason, _, note string, args ...any) {
	r <- regarding.GetObjectKind().GroupVersionKind().Kind + "/" + regarding.(client.Object).GetName() + " " + reason + " " + args[0].(string)
}

// biller is the Deployment of the refused pods, and billerSet its ReplicaSet.
var (
	biller    = &appsv1.Deployment{ObjectMeta: named("biller")}
	billerSet = &appsv1.ReplicaSet{ObjectMeta: named("biller-1", controlledBy("apps/v1", "Deployment", "biller"))}
)

// notes keeps the text of each Event.
type notes chan string

func (n notes) Eventf(_, _ runtime.Object, _, _, _, note string, args ...any) {
	n <- fmt.Sprintf(note, args...)
}

func TestEventOfALongRefusalIsShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(notes, 1)
		r := begin(t, events, billerSet, biller)
		for length := 990; length < 1100; length++ {
			refused := refusedPod(controlledBy("apps/v1", "ReplicaSet", "biller-1"))
			refused.Message = "Probes: " + strings.Repeat("ä", length/2)
			r.observe(refused)
			note := <-events
			assert.LessOrEqual(t, len(note), 1024)
			assert.True(t, utf8.ValidString(note))
			assert.True(t, strings.HasPrefix(note, "A pod was refused: Probes: ää"))
			<-time.After(refusedPause)
		}
	})
}

func TestEventAndMetricOfRefusalHaveSameReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admissions.Reset()
		events := make(recorder, 1)
		r := begin(t, events, billerSet, biller)
		for _, e := range reason.All {
			refused := refusedPod(controlledBy("apps/v1", "ReplicaSet", "biller-1"))
			refused.Reasons, refused.Message = []reason.Reason{e.Reason}, reason.Refusal{Reason: e.Reason}.Error()
			r.observe(refused)
			assert.True(t, strings.HasPrefix(<-events, "Deployment/biller "+string(e.Reason)+" "+string(e.Reason)+": "), e.Reason)
			var counted dto.Metric
			require.NoError(t, admissions.WithLabelValues("pods", "denied", string(e.Reason)).Write(&counted))
			assert.EqualValues(t, 1, counted.GetCounter().GetValue(), e.Reason)
			<-time.After(refusedPause)
		}
	})
}

func TestFloodOfRefusalsNeverBlocksOtherCalls(t *testing.T) {
	admissions.Reset()
	r := newReporter(nil, nil, nil)
	for n := range maxQueued + 50 {
		r.observe(admit.Outcome{
			Resource: "pods", Namespace: strconv.Itoa(n), Owner: &metav1.OwnerReference{}, Denied: true,
			Reasons: []reason.Reason{reason.Probes, reason.Hooks},
		})
	}
	assert.Len(t, r.refused, maxQueued)
	for _, reason := range []string{"Probes", "Hooks"} {
		var counted dto.Metric
		require.NoError(t, admissions.WithLabelValues("pods", "denied", reason).Write(&counted))
		assert.EqualValues(t, maxQueued+50, counted.GetCounter().GetValue(), reason)
	}
}

// While no replica enrolls, new pods wait. So another replica must follow soon.
func TestLeaderElectionReplacesALostLeaderWithinSeconds(t *testing.T) {
	o, err := termOptions(settings{leaderElection: true})
	require.NoError(t, err)
	assert.True(t, o.LeaderElection)
	require.NotNil(t, o.LeaseDuration, "the default would block the next replica for 15 s")
	assert.LessOrEqual(t, *o.LeaseDuration, 6*time.Second)
	assert.GreaterOrEqual(t, *o.LeaseDuration-*o.RenewDeadline, 2*time.Second)
	// Three attempts with client-go's jitter must fit into the RenewDeadline, so that one lost
	// attempt does not end the term.
	assert.GreaterOrEqual(t, *o.RenewDeadline, 3*time.Duration(leaderelection.JitterFactor*float64(*o.RetryPeriod)))
	assert.True(t, o.LeaderElectionReleaseOnCancel)
}

// A process makes one controller for each term, and all these controllers have the same name.
// By default controller-runtime refuses a second controller of the same name.
func TestProcessCanCreateControllersForSeveralLeaderTerms(t *testing.T) {
	for range 2 {
		o, err := termOptions(settings{})
		require.NoError(t, err)
		o.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
			return testrestmapper.TestOnlyStaticRESTMapper(clientgoscheme.Scheme), nil
		}
		m, err := ctrl.NewManager(&rest.Config{Host: "http://127.0.0.1:1"}, o)
		require.NoError(t, err)
		require.NoError(t, (&enroll.Reconciler{}).SetupWithManager(m))
	}
}
