// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// Flood is the time for which an account floods the API server. With Unprotected, another flood follows,
// without the objects of API Priority and Fairness.
var (
	Flood       = time.Minute
	Unprotected bool
)

const (
	// writers is above the number of seats that workload-low has and can borrow, about 370 of 600. The other
	// writers wait in its queues, which hold 300 requests of one account.
	writers = 600
	// Each of the listers lists 2 MB again and again.
	listers, listed, size = 4, 20, 100 << 10
	// wave is the time between two instants at which all seats become free, and are taken again. Each write of
	// the flood keeps its seat until the next such instant, without processor time: the API server waits for a
	// webhook. In a time of 20 s, a holder without a renewal stops its application.
	wave = 20 * time.Second
	// queued is a wait that no request has without a flood, even on a busy machine.
	queued = 2 * time.Second
)

// TestRenewalsArePunctualWhileAnotherAccountFloodsTheAPIServer floods the priority level workload-low, in which
// the requests of all service accounts wait unless a FlowSchema says otherwise. The flood takes seats, and
// hardly any processor time, so it does not slow down the API server itself. A workload that is created during
// the flood starts, and is handed over, as usual.
func TestRenewalsArePunctualWhileAnotherAccountFloodsTheAPIServer(t *testing.T) {
	l := cluster.NeedLab(t, "it runs a webhook beside the API server")
	s := space.New(t)
	apps := []app.App{app.Lasting("flooded"), app.Lasting("drowned")}
	for i := range apps {
		apps[i].Replicas = 2
		app.Deploy(s, apps[i])
	}
	f := newFlood(s, l)
	began := time.Now()
	late, waits, lost := f.measure(s, apps, Flood, func() {
		fresh, took := starts(s, "fresh")
		assert.Less(t, took, space.Soon)
		app.HandsOver(s, fresh)
	})
	assert.Empty(t, lost)
	assert.Greater(t, share(waits, queued), 0.25, "the flood fills workload-low: %v", waits)
	third := api.RenewPeriod(lease.Lasting) / 3
	assert.Less(t, slices.Max(late), third+space.Stalled(began))
	if !Unprotected {
		return
	}
	withoutFlowSchemas(t)
	late, _, _ = f.measure(s, apps, min(Flood, 2*time.Minute), func() { starts(s, "late") })
	assert.Greater(t, slices.Max(late), third, "without the FlowSchemas")
}

// starts deploys one more singleton, and returns the time until one of its pods ran the application.
func starts(s *space.Space, name string) (a app.App, took time.Duration) {
	s.Helper()
	began := time.Now()
	a = app.Lasting(name)
	a.Replicas = 2
	app.Deploy(s, a)
	took = time.Since(began)
	s.Remark("a new singleton ran after %v", took.Round(time.Millisecond))
	return a, took
}

// withoutFlowSchemas deletes the FlowSchemas of Metaparticle until the end of the test.
func withoutFlowSchemas(t *testing.T) {
	t.Helper()
	schemas := cluster.Client.FlowcontrolV1().FlowSchemas()
	for _, name := range []string{"metaparticle-agents", "metaparticle-webhook"} {
		saved, err := schemas.Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		require.NoError(t, schemas.Delete(t.Context(), name, metav1.DeleteOptions{}))
		t.Cleanup(func() {
			saved.ObjectMeta = metav1.ObjectMeta{Name: name, Labels: saved.Labels}
			_, err := schemas.Create(context.Background(), saved, metav1.CreateOptions{})
			assert.NoError(t, err)
		})
	}
}

// share returns the part of the times that exceed a bound.
func share(times []time.Duration, bound time.Duration) float64 {
	n := 0
	for _, d := range times {
		if d > bound {
			n++
		}
	}
	return float64(n) / float64(max(1, len(times)))
}

// flood is the means of a flood: a namespace of its own, the client of an account that sends the flood, and
// the client of an ordinary account.
type flood struct {
	namespace       string
	sender, another kubernetes.Interface
}

func newFlood(s *space.Space, l *lab.Cluster) flood {
	s.Helper()
	apart := space.New(s.T, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	f := flood{namespace: apart.Namespace, sender: account(apart, "sender"), another: account(apart, "another")}
	for range listed {
		_, err := s.Client.CoreV1().ConfigMaps(f.namespace).Create(s.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "large-"}, Data: map[string]string{"text": strings.Repeat("x", size)},
		}, metav1.CreateOptions{})
		require.NoError(s, err)
	}
	// The API server shares the network of the listener.
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the API server has given up
		select {
		case <-time.After(time.Until(time.Now().Truncate(wave).Add(wave))):
		case <-r.Context().Done():
		}
	}))
	server.Listener = listenBeside(s, l.PID(lab.ControlPlane, "apiserver"))
	server.StartTLS()
	s.Cleanup(server.Close)
	slowly := admissionv1.ValidatingWebhook{
		Name: "slow.e2e.example", AdmissionReviewVersions: []string{"v1"}, SideEffects: new(admissionv1.SideEffectClassNone),
		FailurePolicy: new(admissionv1.Ignore), TimeoutSeconds: new(int32(30)),
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: f.namespace}},
		ClientConfig:      admissionv1.WebhookClientConfig{URL: &server.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})},
		Rules: []admissionv1.RuleWithOperations{{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
		}},
	}
	webhooks := s.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := webhooks.Create(s.Context(), &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: f.namespace}, Webhooks: []admissionv1.ValidatingWebhook{slowly},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	s.Cleanup(func() { assert.NoError(s, webhooks.Delete(context.Background(), f.namespace, metav1.DeleteOptions{})) })
	return f
}

// account makes a service account that may read and create ConfigMaps, and returns its client.
func account(s *space.Space, name string) kubernetes.Interface {
	s.Helper()
	meta := metav1.ObjectMeta{Name: name, Namespace: s.Namespace}
	_, err := s.Client.CoreV1().ServiceAccounts(s.Namespace).Create(s.Context(), &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	require.NoError(s, err)
	_, err = s.Client.RbacV1().Roles(s.Namespace).Create(s.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "create"}},
	}}, metav1.CreateOptions{})
	require.NoError(s, err)
	_, err = s.Client.RbacV1().RoleBindings(s.Namespace).Create(s.Context(), &rbacv1.RoleBinding{ObjectMeta: meta,
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.Namespace, Name: name}},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	token, err := s.Client.CoreV1().ServiceAccounts(s.Namespace).CreateToken(s.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(s, err)
	config := rest.AnonymousClientConfig(cluster.Config)
	config.BearerToken, config.QPS, config.WarningHandler = token.Status.Token, -1, rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(s, err)
	return client
}

// listenBeside listens on the loopback address of a process's network namespace.
func listenBeside(s *space.Space, pid int) (listener net.Listener) {
	s.Helper()
	require.NoError(s, process.Beside(pid, func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it takes no time
		return err
	}))
	return listener
}

// measure floods the API server for a time. The results are the lateness of each renewal, and the waits of an
// ordinary account's reads, and the slots whose hold has ended. Meanwhile measure calls a function.
func (f flood) measure(s *space.Space, apps []app.App, during time.Duration, meanwhile func()) (late, waits []time.Duration, lost []string) {
	s.Helper()
	ctx, stop := context.WithTimeout(s.Context(), during)
	defer stop()
	holds := map[string]string{}
	for _, a := range apps {
		slot := lease.OfDeployment(a.Name)
		holds[slot] = lease.Hold(s, slot)
	}
	renewals, err := s.Client.CoordinationV1().Leases(s.Namespace).Watch(ctx, metav1.ListOptions{})
	require.NoError(s, err)
	defer renewals.Stop()
	var group sync.WaitGroup
	f.send(ctx, &group)
	group.Go(func() { waits = f.reads(ctx) })
	group.Go(func() { late = lateness(renewals.ResultChan(), holds) })
	meanwhile()
	group.Wait()
	for slot, hold := range holds {
		if lease.Hold(s, slot) != hold {
			lost = append(lost, slot)
		}
	}
	s.Remark("%d renewals, late by %v at most, half of them by %v; %d reads of another account, half of them waited %v, one %v, %.0f %% longer than %v; %d holds lost",
		len(late), slices.Max(late).Round(time.Millisecond), median(late), len(waits), median(waits), slices.Max(waits).Round(time.Millisecond), 100*share(waits, queued), queued, len(lost))
	return late, waits, lost
}

// lateness returns the time from the instant at which each renewal was due to the instant at which the watch
// showed the renewal, until the watch ends.
func lateness(events <-chan watch.Event, holds map[string]string) (late []time.Duration) {
	due := map[string]time.Time{}
	for event := range events {
		l, ok := event.Object.(*coordinationv1.Lease)
		if !ok || holds[l.Name] == "" || l.Spec.RenewTime == nil {
			continue
		}
		next := l.Spec.RenewTime.Add(api.RenewPeriod(lease.Lasting))
		if before := due[l.Name]; !before.IsZero() && before.Before(next) {
			late = append(late, time.Since(before))
		}
		due[l.Name] = next
	}
	for _, before := range due {
		late = append(late, time.Since(before)) // negative, unless the renewal has not come
	}
	return late
}

func median(times []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(times))[len(times)/2].Round(time.Millisecond)
}

// send sends the flood: writes that store nothing, and large lists.
func (f flood) send(ctx context.Context, group *sync.WaitGroup) {
	maps := f.sender.CoreV1().ConfigMaps(f.namespace)
	for range writers {
		group.Go(func() {
			for ctx.Err() == nil {
				_, _ = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "small-"}},
					metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			}
		})
	}
	for range listers {
		group.Go(func() {
			for ctx.Err() == nil {
				_, _ = maps.List(ctx, metav1.ListOptions{})
			}
		})
	}
}

// reads reads an object twice a second with the ordinary account, and returns the time that each read took.
func (f flood) reads(ctx context.Context) (waits []time.Duration) {
	ticker := time.NewTicker(time.Second / 2)
	defer ticker.Stop()
	var group sync.WaitGroup
	var mu sync.Mutex
	for ctx.Err() == nil {
		group.Go(func() {
			began := time.Now()
			_, _ = f.another.CoreV1().ConfigMaps(f.namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, time.Since(began))
		})
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	group.Wait()
	return waits
}
