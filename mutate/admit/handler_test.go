// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

const ownedPod = `{"metadata":{"generateName":"biller-1-","annotations":{"metaparticle.io/singleton":"true"},
	"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"biller-1","uid":"1","controller":true}]},
	"spec":{"containers":[{"name":"app","image":"app:1"}]}}`

// asked stands for the cluster and the registries. The test fails at a look-up of an image, an
// owner or limits.
type asked struct{ t *testing.T }

func (a asked) For(image.PullRights) image.Reader { return a }

func (a asked) Command(context.Context, string) (image.Command, error) {
	a.t.Error("an image was asked for")
	return image.Command{}, nil
}

func (a asked) JobUID(context.Context, string, string) (string, error) { return "", nil }

func (a asked) Origin(context.Context, string, *corev1.Pod) (feature.Origin, error) {
	a.t.Error("an owner was asked for")
	return feature.Origin{}, nil
}

func (a asked) LimitRanges(context.Context, string) ([]corev1.LimitRange, error) {
	a.t.Error("limits were asked for")
	return nil, nil
}

func TestPodWithoutClaimCausesNoImageLookUp(t *testing.T) {
	o := Options{AgentImage: mutatetest.AgentImage, Images: asked{t}, Owners: asked{t}, Limits: asked{t}}
	for _, annotations := range []string{`{}`, `{"metaparticle.io/inject":"false"}`, `{"metaparticle.io/singleton":"maybe?"}`} {
		NewPodHandler(o).Handle(t.Context(), mutatetest.Request(`{"metadata":{"annotations":`+annotations+`},"spec":{"containers":[{"name":"a"}]}}`))
	}
}

// hangs is a registry that never answers.
type hangs struct{}

func (h hangs) For(image.PullRights) image.Reader { return h }

func (hangs) Command(ctx context.Context, _ string) (image.Command, error) {
	<-ctx.Done()
	return image.Command{}, ctx.Err()
}

// kubectl waits for the answer, whatever the registry does.
func TestWorkloadsAnswerWaitsOnlyBrieflyForARegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		response := NewWorkloadHandler(Options{Images: hangs{}}).Handle(t.Context(), mutatetest.Request(
			`{"metadata":{"annotations":{"metaparticle.io/lock":"a"}},"spec":{"template":{"spec":{"containers":[{"name":"a","image":"a"},{"name":"b","image":"b"}]}}}}`))
		assert.True(t, response.Allowed)
		assert.NotEmpty(t, response.Patches)
		require.Len(t, response.Warnings, 2)
		assert.Contains(t, response.Warnings[0], `ImageUnreadable: container "a", image "a": `)
		assert.Equal(t, imagesTime, time.Since(began))
	})
}

// A kubelet creates a mirror pod to show each of its static pods. If the webhook refused the
// mirror pod, the static pod would be hidden.
func TestMirrorPodWithoutClaimIsAdmitted(t *testing.T) {
	o := Options{AgentImage: mutatetest.AgentImage, Images: asked{t}, Owners: asked{t}, Limits: asked{t}}
	const mirror = `{"metadata":{"name":"etcd-a","annotations":{"kubernetes.io/config.mirror":"5d41"%s},
		"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"a","uid":"1","controller":true}]},"spec":{"containers":[{"name":"etcd"}]}}`
	for _, own := range []string{``, `,"metaparticle.io/inject":"false"`, `,"metaparticle.io/singleton":"false"`} {
		response := NewPodHandler(o).Handle(t.Context(), mutatetest.Request(fmt.Sprintf(mirror, own)))
		assert.True(t, response.Allowed, own)
		assert.Empty(t, response.Patches, own)
	}
}

func TestInvalidOwnerCausesRefusalWithoutAnAPICall(t *testing.T) {
	o := Options{AgentImage: mutatetest.AgentImage, Images: asked{t}, Owners: asked{t}}
	for _, owner := range []string{
		`{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"a,b","uid":"1","controller":true}`,
		`{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"","uid":"1","controller":true}`,
		`{"apiVersion":"apps/v1","kind":"Replica Set","name":"a","uid":"1","controller":true}`,
		`{"apiVersion":"Apps/v1","kind":"ReplicaSet","name":"a","uid":"1","controller":true}`,
		`{"apiVersion":"v1","kind":"Node","name":"a","uid":"1","controller":true}`,
	} {
		response := NewPodHandler(o).Handle(t.Context(), mutatetest.Request(
			`{"metadata":{"name":"p","annotations":{"metaparticle.io/lock":"a"},"ownerReferences":[`+owner+`]},"spec":{"containers":[{"name":"app","command":["app"]}]}}`))
		assert.False(t, response.Allowed, owner)
	}
}

func TestPodWebhookIgnoresUpdatesAndSubresourceRequests(t *testing.T) {
	o := Options{AgentImage: mutatetest.AgentImage, Images: asked{t}, Owners: asked{t}}
	r := mutatetest.Request(ownedPod)
	r.Operation = admissionv1.Update
	response := NewPodHandler(o).Handle(t.Context(), r)
	assert.True(t, response.Allowed)
	assert.Empty(t, response.Patches)
	r = mutatetest.Request(ownedPod)
	r.SubResource = "eviction"
	response = NewPodHandler(o).Handle(t.Context(), r)
	assert.True(t, response.Allowed)
	assert.Empty(t, response.Patches)
}

func TestObserverGetsTheOutcomeOfEachAdmission(t *testing.T) {
	f := mutatetest.Facts{Group: &api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}, Images: map[string]mutatetest.Image{"app:1": {Command: image.Command{Cmd: []string{"app"}}}}}
	var seen []Outcome
	o := Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f, Observe: func(outcome Outcome) { seen = append(seen, outcome) }}

	r := mutatetest.Request(ownedPod)
	dry := true
	r.DryRun = &dry
	require.True(t, NewPodHandler(o).Handle(t.Context(), r).Allowed)
	o.Owners = mutatetest.Facts{}
	require.False(t, NewPodHandler(o).Handle(t.Context(), mutatetest.Request(ownedPod)).Allowed)
	response := NewWorkloadHandler(o).Handle(t.Context(),
		mutatetest.Request(`{"metadata":{"annotations":{"metaparticle.io/on-loss":"x","metaparticle.io/lock":"a"}},"spec":{"template":{}}}`))
	require.True(t, response.Allowed)

	require.Len(t, seen, 3)
	assert.Equal(t, "biller-1", seen[0].Owner.Name)
	seen[0].Owner = nil
	assert.Equal(t, Outcome{Resource: "pods", Namespace: "shop", Name: "biller-1-", Changed: true, DryRun: true}, seen[0])
	assert.Equal(t, []reason.Reason{reason.WorkloadUnknown}, seen[1].Reasons)
	assert.True(t, seen[1].Denied)
	assert.Contains(t, seen[1].Message, "WorkloadUnknown: ReplicaSet \"biller-1\": not found")
	assert.Equal(t, Outcome{
		Resource: "deployments", Namespace: "shop", Name: "biller", Changed: true,
		Reasons: []reason.Reason{reason.BadAnnotation},
		Message: `BadAnnotation: metaparticle.io/on-loss is "x": write "standby" or "restart" (` + reason.Link(reason.BadAnnotation) + ")",
	}, seen[2])
}

// The Event about a pod's warnings comes from the outcome.
func TestObserverGetsTheWarningsOfAnAdmittedPod(t *testing.T) {
	f := mutatetest.Facts{Group: &api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}, Images: map[string]mutatetest.Image{"app:1": {Command: image.Command{Cmd: []string{"/init"}}}}}
	var seen []Outcome
	o := Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f, Observe: func(outcome Outcome) { seen = append(seen, outcome) }}
	require.True(t, NewPodHandler(o).Handle(t.Context(), mutatetest.Request(ownedPod)).Allowed)
	require.Len(t, seen, 1)
	assert.Equal(t, []reason.Reason{reason.NeedsPID1}, seen[0].Reasons)
	assert.Contains(t, seen[0].Message, "NeedsPID1: container")
	assert.False(t, seen[0].Denied)
}

func TestPodIsAdmittedIfLimitRangesAreUnreadable(t *testing.T) {
	f := mutatetest.Facts{Group: &api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}, Images: map[string]mutatetest.Image{"app:1": {Command: image.Command{Cmd: []string{"app"}}}}}
	o := Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f, Limits: noLimits{}}
	assert.True(t, NewPodHandler(o).Handle(t.Context(), mutatetest.Request(ownedPod)).Allowed)
}

type noLimits struct{}

func (noLimits) LimitRanges(context.Context, string) ([]corev1.LimitRange, error) {
	return nil, mutatetest.Error("away")
}

// slow is an implementation of [Owners]. Its method Origin returns only when the context of the
// call ends.
type slow struct{ mutatetest.Facts }

func (slow) JobUID(context.Context, string, string) (string, error) { return "", nil }

func (slow) Origin(ctx context.Context, _ string, _ *corev1.Pod) (feature.Origin, error) {
	<-ctx.Done()
	return feature.Origin{}, ctx.Err()
}

func TestWebhookRefusesPodWhenOwnerReadTimesOut(t *testing.T) {
	o := Options{AgentImage: mutatetest.AgentImage, Images: mutatetest.Facts{}, Owners: slow{}, Timeout: time.Millisecond}
	response := NewPodHandler(o).Handle(t.Context(), mutatetest.Request(ownedPod))
	require.False(t, response.Allowed)
	assert.Contains(t, response.Result.Message, "WorkloadUnknown: ")
}

func TestMalformedObjectsGetStatusBadRequest(t *testing.T) {
	for _, raw := range []string{``, `[]`, `{"spec":{"containers":"x"}}`} {
		response := NewPodHandler(Options{}).Handle(t.Context(), mutatetest.Request(raw))
		assert.False(t, response.Allowed)
		assert.EqualValues(t, http.StatusBadRequest, response.Result.Code)
	}
	response := NewWorkloadHandler(Options{}).Handle(t.Context(), mutatetest.Request(`{"metadata":7}`))
	assert.False(t, response.Allowed)
	assert.EqualValues(t, http.StatusBadRequest, response.Result.Code)
}

func TestWorkloadSubresourcesAreNotPatched(t *testing.T) {
	r := mutatetest.Request(`{"metadata":{"annotations":{"metaparticle.io/lock":"a"}}}`)
	r.SubResource = "scale"
	assert.Empty(t, NewWorkloadHandler(Options{}).Handle(t.Context(), r).Patches)
	r.SubResource, r.Operation = "", admissionv1.Delete
	assert.Empty(t, NewWorkloadHandler(Options{}).Handle(t.Context(), r).Patches)
}

// The label of a namespace brings no claim to a pod template, and nothing else tells the person who writes it.
func TestOptInWarnsOfWorkloadsWhosePodsStayUngated(t *testing.T) {
	web, nightly := api.Workload{Group: "apps", Kind: "Deployment", Name: "web"}, api.Workload{Group: "batch", Kind: "CronJob", Name: "nightly"}
	var many []api.Workload
	for i := range 9 {
		many = append(many, api.Workload{Group: "apps", Kind: "StatefulSet", Name: fmt.Sprint("db-", i)})
	}
	const cause = "NotGated: the label brings nothing to pod templates, so "
	for name, c := range map[string]struct {
		found Uncarried
		err   error
		want  []string
	}{
		"none": {},
		"a Deployment": {Uncarried{Workloads: []api.Workload{web}}, nil,
			[]string{cause + "deployment/web would still run without a gate: kubectl rollout restart -n shop deployment/web (" + reason.Link("NotGated") + ")"}},
		"a CronJob, too": {Uncarried{Workloads: []api.Workload{web, nightly}}, nil,
			[]string{cause + "deployment/web, cronjob/nightly would still run without a gate: kubectl rollout restart -n shop deployment/web; " +
				"write the annotation of cronjob/nightly again (kubectl annotate --overwrite -n shop) (" + reason.Link("NotGated") + ")"}},
		"many": {Uncarried{Workloads: many, Unread: 3}, nil, []string{
			cause + "9 workloads that claim still run without a gate, such as statefulset/db-0, statefulset/db-1, statefulset/db-2, statefulset/db-3, statefulset/db-4: " +
				"kubectl rollout restart -n shop statefulset/db-0 statefulset/db-1 statefulset/db-2 statefulset/db-3 statefulset/db-4; kubectl metaparticle check names the others (" + reason.Link("NotGated") + ")",
			"NotGated: 3 more annotated workloads were not read: kubectl metaparticle check names those whose pods run without a gate",
		}},
		"an API server that is away": {Uncarried{Unread: 1}, context.DeadlineExceeded, []string{"NotGated: 1 more annotated workloads were not read: kubectl metaparticle check names those whose pods run without a gate"}},
	} {
		asked := ""
		o := Options{Uncarried: func(ctx context.Context, namespace string) (Uncarried, error) {
			_, bounded := ctx.Deadline()
			assert.True(t, bounded)
			asked = namespace
			return c.found, c.err
		}}
		request := mutatetest.Request(`{"metadata":{"name":"shop","labels":{"metaparticle.io/injection":"enabled"}}}`)
		request.Operation, request.Name, request.Namespace = admissionv1.Update, "shop", "shop"
		answer := NewNamespaceHandler(o).Handle(t.Context(), request)
		assert.True(t, answer.Allowed, name)
		assert.Empty(t, answer.Patches, name)
		assert.Equal(t, c.want, answer.Warnings, name)
		assert.Equal(t, "shop", asked, name)
		asked = ""
		for _, other := range []string{"", "till"} {
			request.Namespace = other
			NewNamespaceHandler(o).Handle(t.Context(), request)
			request.Name, request.Namespace = "", ""
			NewNamespaceHandler(o).Handle(t.Context(), request)
			request.Name = "shop"
		}
		assert.Empty(t, asked, "%s: no API server asks so", name)
	}
}

func TestOptInIsNotReadTwiceAtOnce(t *testing.T) {
	request := mutatetest.Request(`{"metadata":{"name":"shop","labels":{"metaparticle.io/injection":"enabled"}}}`)
	request.Operation, request.Name, request.Namespace = admissionv1.Update, "shop", "shop"
	var h admission.Handler
	var inner admission.Response
	h = NewNamespaceHandler(Options{Uncarried: func(ctx context.Context, _ string) (Uncarried, error) {
		inner = h.Handle(ctx, request)
		return Uncarried{}, nil
	}})
	assert.Empty(t, h.Handle(t.Context(), request).Warnings)
	assert.True(t, inner.Allowed)
	assert.Equal(t, []string{"NotGated: the workloads of shop were not read: kubectl metaparticle check names those whose pods run without a gate"}, inner.Warnings)
}
