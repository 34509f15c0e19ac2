// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// upgraded is a server whose version changes, and is unknown at first.
type upgraded struct{ info atomic.Pointer[version.Info] }

func (u *upgraded) ServerVersion() (*version.Info, error) {
	if info := u.info.Load(); info != nil {
		return info, nil
	}
	return nil, errors.New("no route")
}

func TestWebhookRegularlyRereadsTheClustersKubernetesVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &upgraded{}
		k := &kubernetes{server: server, log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = k.Start(ctx) }()
		synctest.Wait()
		assert.Zero(t, k.minor(), "not known counts as too old")

		server.info.Store(&version.Info{Major: "1", Minor: "35+"})
		<-time.After(versionRetry + time.Second)
		assert.Equal(t, 35, k.minor())

		server.info.Store(&version.Info{Major: "1", Minor: "37"})
		<-time.After(versionAgain + time.Second)
		assert.Equal(t, 37, k.minor())

		for _, strange := range []*version.Info{{Major: "2", Minor: "0"}, {Major: "1", Minor: "x"}, {}} {
			server.info.Store(strange)
			<-time.After(versionAgain + time.Second)
			assert.Equal(t, 37, k.minor(), "the last that was understood")
		}
		cancel()
		synctest.Wait()
	})
}

// docs/reference/compatibility.md: gates/too-old refused KubernetesTooOld
func TestPodGateNeedsAKnownRecentKubernetesVersion(t *testing.T) {
	k := &kubernetes{log: slog.New(slog.DiscardHandler)}
	handler := admit.NewPodHandler(admit.Options{AgentImage: "agent:1", Kubernetes: k.minor})
	ask := func() admission.Response {
		return handler.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
			Operation: admissionv1.Create, Kind: metav1.GroupVersionKind{Kind: "Pod"}, Namespace: "shop",
			Object: runtime.RawExtension{Raw: []byte(`{"metadata":{"name":"biller","annotations":` +
				`{"metaparticle.io/singleton":"true","metaparticle.io/gate":"pod"}},` +
				`"spec":{"containers":[{"name":"app","image":"s6:1"}]}}`)},
		}})
	}
	for minor, allowed := range map[int]bool{0: false, 33: false, 35: false, 36: true, 37: true} {
		k.known.Store(int64(minor))
		response := ask()
		assert.Equal(t, allowed, response.Allowed, "1.%d", minor)
		if !allowed {
			assert.Contains(t, response.Result.Message, string(reason.KubernetesTooOld)+": ")
		}
	}
}
