// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"maps"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// shortLease is the shortest lease there is: 4.67 s to renew, 1.33 s to stop
// (plus 1 s to be killed), 2 s of margin.
const shortLease = 10 * time.Second

// lastingLease rides out 9 s in which a starved machine renews nothing: losses
// are for the tests of losses. Whoever gets a slot within released of its loss got
// it by a release: the last renewal is at most 5 s old, or a little more, and what
// has to expire does so 25 s later.
const (
	lastingLease = 30 * time.Second
	released     = lastingLease / 2
)

// app is a workload of the unchanged application.
type app struct {
	name string
	// record is the name that the application must be alone under; empty: name.
	record string
	// replicas is 3 if zero: one on each node.
	replicas int32
	// annotations of the workload.
	annotations map[string]string
	// template holds annotations of the pod template.
	template map[string]string
	args     []string
	// grace is the pods' grace period in seconds; 30 if zero.
	grace int64
	// edit is the last word on the pod template.
	edit func(*corev1.PodTemplateSpec)
}

// singleton is a three-replica application of which one runs.
func singleton(name string) app {
	return app{name: name, annotations: claim(api.SingletonAnnotation, "true")}
}

// lasting is a singleton that keeps its slot on a machine that stalls.
func lasting(name string) app {
	a := singleton(name)
	a.annotations[api.LeaseDurationAnnotation] = lastingLease.String()
	return a
}

// locked is an application that shares a lock.
func locked(name, lock string) app {
	return app{name: name, record: lock, replicas: 1, annotations: claim(api.LockAnnotation, lock)}
}

// claim is one claim, with the shortest lease.
func claim(key, value string) map[string]string {
	return map[string]string{key: value, api.LeaseDurationAnnotation: shortLease.String()}
}

// deploymentSlot is the Lease of a Deployment's singleton.
func deploymentSlot(name string) string {
	return api.SingletonLease(api.Workload{Group: "apps", Kind: "Deployment", Name: name}, "")
}

func (a app) recordName() string {
	if a.record != "" {
		return a.record
	}
	return a.name
}

func (s *space) template(a app) corev1.PodTemplateSpec {
	if a.grace == 0 {
		a.grace = 30
	}
	args := []string{"-listen=:8080", "-alone=" + a.recordName()}
	container := corev1.Container{
		Name: "app", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: append(args, a.args...),
		// A pod of no requests starves on a machine that is busy, and its stamps with it.
		Resources: corev1.ResourceRequirements{Requests: quantities("20m", "16Mi")},
		Ports:     []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		Env: []corev1.EnvVar{field("POD_NAME", "metadata.name"), field("POD_UID", "metadata.uid"),
			field("NODE_NAME", "spec.nodeName")},
	}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": a.name}, Annotations: a.template},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &a.grace,
			// One pod on each node, as long as there are nodes.
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
				MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.name}},
			}},
		},
	}
	if s.dir != "" {
		container.Args = append([]string{"-record=/record"}, container.Args...)
		container.VolumeMounts = []corev1.VolumeMount{{Name: "record", MountPath: "/record"}}
		directory := corev1.HostPathDirectory
		template.Spec.Volumes = []corev1.Volume{{Name: "record", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: s.mount(), Type: &directory},
		}}}
	}
	template.Spec.Containers = []corev1.Container{container}
	if a.edit != nil {
		a.edit(&template)
	}
	return template
}

func field(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: path},
	}}
}

func (s *space) meta(a app) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: a.name, Namespace: s.name, Annotations: maps.Clone(a.annotations),
		Labels: map[string]string{"app": a.name}}
}

func (a app) selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.name}}
}

func (a app) count() *int32 {
	if a.replicas == 0 {
		a.replicas = 3
	}
	return &a.replicas
}

func (s *space) deployment(a app) *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: s.meta(a),
		Spec:       appsv1.DeploymentSpec{Replicas: a.count(), Selector: a.selector(), Template: s.template(a)},
	}
}

func (s *space) statefulSet(a app) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: s.meta(a),
		Spec: appsv1.StatefulSetSpec{Replicas: a.count(), Selector: a.selector(), Template: s.template(a),
			ServiceName: a.name, PodManagementPolicy: appsv1.ParallelPodManagement},
	}
}

func (s *space) job(a app) batchv1.JobTemplateSpec {
	template := s.template(a)
	template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	return batchv1.JobTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": a.name}},
		Spec:       batchv1.JobSpec{Template: template},
	}
}

func (s *space) cronJob(a app) *batchv1.CronJob {
	return &batchv1.CronJob{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "CronJob"},
		ObjectMeta: s.meta(a),
		Spec: batchv1.CronJobSpec{Schedule: "* * * * *", ConcurrencyPolicy: batchv1.AllowConcurrent,
			JobTemplate: s.job(a)},
	}
}

// service is in front of an application's pods, whichever are Ready.
func (s *space) service(a app) *corev1.Service {
	service, err := s.client.CoreV1().Services(s.name).Create(s.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: a.name},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": a.name},
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	return service
}

// deploy creates a Deployment and waits until all its pods stand and one runs.
func (s *space) deploy(a app) *appsv1.Deployment {
	s.Helper()
	d := s.create(a)
	s.awaitGated(a)
	s.awaitRunning(a, startTimeout)
	return d
}

// create makes the application's Deployment, and waits for nothing.
func (s *space) create(a app) *appsv1.Deployment {
	s.Helper()
	var d *appsv1.Deployment
	var err error
	// A node that was cut off a moment ago may have taken the API server's
	// connection to the webhook with it, which it finds out after half a minute. A
	// webhook that now and then does not answer shall be seen all the same.
	tries, said := 0, ""
	s.within(startTimeout, func() bool {
		d, err = s.client.AppsV1().Deployments(s.name).Create(s.Context(), s.deployment(a), metav1.CreateOptions{})
		tries++
		// The policy "carried" says the same in other words: workloads pass without
		// the webhook, and what the webhook had to carry is refused.
		if !apierrors.IsInternalError(err) && (err == nil || !strings.Contains(err.Error(), "NotCarried: ")) {
			return true
		}
		if err.Error() != said {
			said = err.Error()
			s.remark("create %s, try %d: %s", a.name, tries, said)
		}
		return false
	})
	require.NoError(s, err)
	return d
}

// awaitGated waits until as many gated pods as replicas have all their
// containers running.
func (s *space) awaitGated(a app) {
	s.Helper()
	s.await(startTimeout, "all pods of "+a.name+" up", func() bool {
		var up int32
		for _, pod := range s.all(a.name) {
			if pod.DeletionTimestamp == nil && pod.Labels[api.GatedLabel] == api.Gated && containersRun(pod) {
				up++
			}
		}
		return up == *a.count()
	})
}

func containersRun(pod *corev1.Pod) bool {
	statuses := pod.Status.ContainerStatuses
	for _, status := range statuses {
		if status.State.Running == nil {
			return false
		}
	}
	return len(statuses) > 0
}

// awaitRunning waits until one of a's pods runs the application.
func (s *space) awaitRunning(a app, timeout time.Duration) (now *record.Process) {
	s.Helper()
	s.await(timeout, a.name+" runs", func() bool { now = s.running(a.recordName()); return now != nil })
	return now
}

// restarts sums up the restart counts of all gated containers of a's pods.
func (s *space) restarts(a app) (sum int32) {
	for _, pod := range s.all(a.name) {
		for _, status := range pod.Status.ContainerStatuses {
			sum += status.RestartCount
		}
	}
	return sum
}
