// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

const (
	// measured bounds the time until an autoscaler acts on a change of CPU use. The kubelet
	// measures every 15 s. Every 10 s metrics-server reads a measurement, and computes a rate from
	// two of them. The autoscaler asks every 5 s. On an idle machine the reaction takes 40 s. On a
	// busy machine the reaction takes several times as long: while a measurement is missing, the
	// autoscaler removes no pod.
	measured = 4 * time.Minute

	// asking is the time between two calls of kubectl top. The test has to poll, because
	// the API of metrics-server has no watch.
	asking = time.Second

	// request is the CPU request of the application's container. An application that only writes
	// its record uses some hundredths of a processor at most, which is far below the request.
	request = "100m"

	// load is the CPU use of a working application in thousandths of a processor: twice the
	// container's request.
	load = 200

	// reached and beyondReach are autoscalers' targets, in percent of a resource request. If one
	// of two pods works, their average use is well above the first target. If none works, the
	// average of three pods is below two thirds of that target, so two pods are enough. No average
	// is as high as the second target.
	reached, beyondReach = 80, 1000
)

// scaled is an application whose autoscaler chooses two or three replicas.
type scaled struct {
	*space.Space
	a      app.App
	scaler func() *autoscalingv2.HorizontalPodAutoscaler
	before *record.Process
}

// scale deploys an application with an autoscaler that decides by metrics.
func scale(t *testing.T, a app.App, metrics ...autoscalingv2.MetricSpec) scaled {
	t.Helper()
	cluster.NeedLab(t, "it needs the record, and metrics every 10 s")
	s := space.New(t)
	a.Replicas = 2
	a.Edit = func(template *corev1.PodTemplateSpec) {
		template.Spec.Containers[0].Resources.Requests = app.Quantities(request, "16Mi")
	}
	app.Deploy(s, a)

	factory := informers.NewSharedInformerFactoryWithOptions(s.Client, 0, informers.WithNamespace(s.Namespace))
	scalers := factory.Autoscaling().V2().HorizontalPodAutoscalers()
	_, err := scalers.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { s.Changed() }, UpdateFunc: func(any, any) { s.Changed() },
	})
	require.NoError(t, err)
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())

	now, two := int32(0), int32(2)
	_, err = s.Client.AutoscalingV2().HorizontalPodAutoscalers(s.Namespace).Create(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: a.Name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: a.Name},
			MinReplicas:    &two, MaxReplicas: 3, Metrics: metrics,
			Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{
				ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &now},
			},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return scaled{s, a, func() *autoscalingv2.HorizontalPodAutoscaler {
		scaler, err := scalers.Lister().HorizontalPodAutoscalers(s.Namespace).Get(a.Name)
		if err != nil {
			return &autoscalingv2.HorizontalPodAutoscaler{}
		}
		return scaler
	}, app.AwaitRunning(s, a, space.Soon)}
}

// ofPod returns a metric of whole pods with a target in percent of their requests.
func ofPod(name corev1.ResourceName, percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: name, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

// ofContainer returns a metric of the application's container.
func ofContainer(name corev1.ResourceName, percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
		Name: name, Container: "app",
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

// works makes the holder's application use the given number of thousandths of a
// processor.
func (s scaled) works(milli int) {
	s.Helper()
	s.Await(space.StartTimeout, "the application is told how much to do", func() bool {
		_, err := s.Client.CoreV1().Pods(s.Namespace).ProxyGet("http", s.before.Pod, "8080", "burn",
			map[string]string{"milli": strconv.Itoa(milli)}).DoRaw(s.Context())
		return err == nil // a new application may not listen yet
	})
}

// averages returns the present average of each metric, in the order of the autoscaler's status. The
// result is nil until all averages are known.
func (s scaled) averages() (all []autoscalingv2.MetricValueStatus) {
	scaler := s.scaler()
	for _, m := range scaler.Status.CurrentMetrics {
		switch {
		case m.Resource != nil:
			all = append(all, m.Resource.Current)
		case m.ContainerResource != nil:
			all = append(all, m.ContainerResource.Current)
		}
	}
	if len(all) < max(1, len(scaler.Spec.Metrics)) {
		return nil
	}
	for _, value := range all {
		if value.AverageUtilization == nil || value.AverageValue == nil {
			return nil
		}
	}
	return all
}

// awaitGrown waits until the autoscaler has made three replicas, and requires that the autoscaler
// names the metric as its reason.
func (s scaled) awaitGrown(metric string) {
	s.Helper()
	s.Await(measured, "three replicas", func() bool {
		return s.scaler().Status.CurrentReplicas == 3 && len(s.Pods(s.a.Name)) == 3
	})
	var event *corev1.Event
	s.Await(space.StartTimeout, "it is said why", func() bool {
		event = s.Event("HorizontalPodAutoscaler", s.a.Name, "SuccessfulRescale")
		return event != nil
	})
	assert.Contains(s, event.Message, "New size: 3; reason: "+metric)
}

// awaitShare waits until three pods have metrics, and the autoscaler's last average is suitable. A
// suitable average is from atLeast to atMost times the CPU use of the holder. awaitShare returns the
// averages of all metrics, because the autoscaler's next status may lack one of them.
func (s scaled) awaitShare(atLeast, atMost float64) (averages []autoscalingv2.MetricValueStatus) {
	s.Helper()
	var asked time.Time
	var top string
	share := 0.0
	met := s.Within(measured, func() bool {
		averages = s.averages()
		if averages == nil || time.Since(asked) < asking {
			return false
		}
		asked = time.Now()
		var err error
		if top, err = kubectl.Run(s.Space, "", "top", "pod", "--containers", "--no-headers"); err != nil {
			return false // no metrics yet
		}
		used := uses(top)
		share = averages[len(averages)-1].AverageValue.AsApproximateFloat64() / used[s.before.Pod]
		return len(used) == 3 && share >= atLeast && share <= atMost
	})
	require.True(s, met, "the average is %.2f of what the holder uses, not %v to %v: %+v\n%s",
		share, atLeast, atMost, s.scaler().Status, top)
	s.Logf("the average is %.2f of what the holder uses", share)
	return averages
}

// uses returns the CPU use of each pod's application container in processors, by the pod's
// name. The argument "top" is the output of kubectl top.
func uses(top string) map[string]float64 {
	used := map[string]float64{}
	for line := range strings.Lines(top) {
		words := strings.Fields(line)
		if len(words) == 4 && words[1] == "app" {
			cpu := resource.MustParse(words[2])
			used[words[0]] = cpu.AsApproximateFloat64()
		}
	}
	return used
}

// Only the holder works, but the average counts all three pods, so the average is a third
// of the holder's use. When the work is done, the autoscaler removes a standby and not
// the holder.
//
// docs/reference/compatibility.md: identity/hpa identity/hpa-container carried
func TestAutoscalersAverageIncludesIdleStandbys(t *testing.T) {
	t.Parallel()
	s := scale(t, app.Lasting("scaled"),
		ofPod(corev1.ResourceMemory, beyondReach), ofContainer(corev1.ResourceMemory, beyondReach),
		ofPod(corev1.ResourceCPU, reached), ofContainer(corev1.ResourceCPU, beyondReach))
	s.works(load)
	s.awaitGrown("cpu resource utilization")
	averages := s.awaitShare(0.25, 0.42) // around a third of the holder's use, because three pods count
	require.Len(t, averages, 4)
	for i, value := range averages {
		assert.Positive(t, *value.AverageUtilization, i)
		assert.Positive(t, value.AverageValue.MilliValue(), i)
	}

	s.works(0)
	shrunk := s.Within(measured, func() bool { return s.scaler().Status.CurrentReplicas == 2 && len(s.Pods(s.a.Name)) == 2 })
	require.True(t, shrunk, "not two replicas: %+v", s.scaler().Status)
	assert.Equal(t, s.before.ID, app.AwaitRunning(s.Space, s.a, space.Soon).ID, "a standby went")
}

// An autoscaler omits pods that are not Ready from the average CPU use. In this test only the
// holder is Ready, so the average is the use of the holder alone.
func TestAutoscalersAverageOmitsUnreadyStandbys(t *testing.T) {
	t.Parallel()
	a := app.Lasting("unready")
	a.Annotations[api.ReadinessAnnotation] = string(api.ReadinessHolder)
	s := scale(t, a, ofContainer(corev1.ResourceCPU, reached))
	s.works(load)
	s.awaitGrown("cpu container resource utilization")
	s.awaitShare(0.75, 1.25)
}
