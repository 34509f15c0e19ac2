// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
)

// begin starts a reporter until the end of the bubble's function.
func begin(t *testing.T, events enroll.Recorder, exist ...client.Object) *reporter {
	r := reporterOf(fake.NewClientBuilder().WithObjects(exist...).Build(), events)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _ = r.Start(ctx) }()
	t.Cleanup(cancel)
	return r
}

// refuse sends a pod with a mistaken annotation and the given controller through the handler of pods.
func refuse(t *testing.T, r *reporter, owner metav1.OwnerReference) {
	raw, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: "p", Annotations: map[string]string{"metaparticle.io/lock": "-no name-"}, OwnerReferences: []metav1.OwnerReference{owner},
	}})
	require.NoError(t, err)
	handler := admit.NewPodHandler(admit.Options{Owners: r.owners, Observe: r.observe})
	answer := handler.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Namespace: "shop", Object: runtime.RawExtension{Raw: raw},
	}})
	require.False(t, answer.Allowed)
	synctest.Wait()
}

// The recorder of Events keeps each object, and makes one series for equal objects. So a version that
// the author of a pod invents must not be in the Event.
func TestEventNeverContainsVersionInOwnerReference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(regarded, 100)
		deployed := &appsv1.ReplicaSet{ObjectMeta: named("web-1", controlledBy("apps/v7", "Deployment", "web"))}
		r := begin(t, events, &appsv1.StatefulSet{ObjectMeta: named("db")}, deployed, &appsv1.Deployment{ObjectMeta: named("web")})
		for n := range 5 {
			refuse(t, r, controlledBy("apps/v"+strconv.Itoa(n+2), "StatefulSet", "db"))
			refuse(t, r, controlledBy("apps/v"+strconv.Itoa(n+2), "ReplicaSet", "web-1"))
		}
		require.Len(t, events, 10)
		for range 10 {
			assert.Equal(t, "apps/v1", (<-events).APIVersion)
		}
	})
}

func TestLongTextOfOwnerReferenceReachesNoEvent(t *testing.T) {
	long := strings.Repeat("x", 1_400_000)
	synctest.Test(t, func(t *testing.T) {
		events := make(regarded, 100)
		set := &appsv1.StatefulSet{ObjectMeta: named("db")}
		set.UID = types.UID(long)
		var exist []client.Object
		for name, above := range map[string]metav1.OwnerReference{
			"version": controlledBy("example.com/"+long, "Web", "web"), "group": controlledBy(long+"/v1", "Web", "web"),
			"kind": controlledBy("example.com/v1", long, "web"), "name": controlledBy("example.com/v1", "Web", long),
		} {
			exist = append(exist, &appsv1.ReplicaSet{ObjectMeta: named(name, above)})
		}
		r := begin(t, events, append(exist, set)...)
		refuse(t, r, controlledBy("apps/"+long, "StatefulSet", "db"))
		by := controlledBy("apps/v1", "StatefulSet", "db")
		by.UID = set.UID
		refuse(t, r, by)
		assert.Empty(t, events)
		for _, owner := range exist {
			refuse(t, r, controlledBy("apps/v1", "ReplicaSet", owner.GetName()))
			require.Len(t, events, 1)
			at := <-events
			assert.Equal(t, "apps/v1 ReplicaSet "+owner.GetName(), at.APIVersion+" "+at.Kind+" "+at.Name)
		}
	})
}

func TestRefusedPodsOfNamespaceCauseFewEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(regarded, 1000)
		r := begin(t, events, &appsv1.StatefulSet{ObjectMeta: named("db")})
		refusals := func(pods int) int {
			for range pods {
				r.observe(refusedPod(controlledBy("apps/v1", "StatefulSet", "db")))
				synctest.Wait()
			}
			defer func() {
				for len(events) > 0 {
					<-events
				}
			}()
			return len(events)
		}
		assert.Equal(t, refusedBurst, refusals(200))
		<-time.After(10 * refusedPause)
		assert.Equal(t, 10, refusals(200))
		<-time.After(refusedBurst * refusedPause)
		assert.Equal(t, refusedBurst, refusals(200))
	})
}

func TestNamespaceNeverCrowdsOutOthersEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := named("db")
		other := shop
		other.Namespace = "other"
		events := make(regarded, 1000)
		reader := fake.NewClientBuilder().WithObjects(&appsv1.StatefulSet{ObjectMeta: shop}, &appsv1.StatefulSet{ObjectMeta: other}).Build()
		r := reporterOf(reader, events)
		for range 2 * maxQueued {
			r.observe(refusedPod(controlledBy("apps/v1", "StatefulSet", "db")))
		}
		last := refusedPod(controlledBy("apps/v1", "StatefulSet", "db"))
		last.Namespace = "other"
		r.observe(last)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = r.Start(ctx) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		at := map[string]int{}
		for len(events) > 0 {
			at[(<-events).Namespace]++
		}
		assert.Equal(t, map[string]int{"shop": maxQueuedOfNamespace, "other": 1}, at)
		assert.Empty(t, r.queued)
	})
}

func TestPacesOfNamespacesTakeBoundedMemory(t *testing.T) {
	p, now := paces{}, time.Unix(1_800_000_000, 0)
	for n := range 2 * maxPaces {
		if name := strconv.Itoa(n); p.allow(name, now) {
			p.spend(name, now)
		}
	}
	assert.Len(t, p, maxPaces)
	assert.False(t, p.allow("later", now))
	assert.True(t, p.allow("0", now), "a namespace that is counted keeps its pace")
	assert.True(t, p.allow("later", now.Add(refusedPause)))
	assert.Empty(t, p)
}
