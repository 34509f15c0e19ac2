// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package app

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// Bare returns a pod without a workload, for tests of admission.
func Bare(s *space.Space, name string, annotations map[string]string) *corev1.Pod {
	a := App{Name: name, Template: annotations}
	template := Template(s, a)
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.Namespace, Labels: template.Labels, Annotations: annotations},
		Spec:       template.Spec,
	}
}

// App is a workload of the test application.
type App struct {
	Name string
	// Record is the name of the record in which no two processes may overlap; empty means
	// Name.
	Record string
	// Replicas is the number of replicas; zero means 3, one on each node.
	Replicas int32
	// Annotations are the annotations of the workload.
	Annotations map[string]string
	// Template has the annotations of the pod template.
	Template map[string]string
	Args     []string
	// Grace is the pods' grace period in seconds; 30 if zero.
	Grace int64
	// Edit changes the finished pod template; nil means no edit.
	Edit func(*corev1.PodTemplateSpec)
}

// Singleton returns an application of three replicas, of which one runs.
func Singleton(name string) App {
	return App{Name: name, Annotations: Claim(api.SingletonAnnotation, "true")}
}

// Lasting returns a singleton that keeps its slot even if the machine stalls the agent
// for seconds.
func Lasting(name string) App {
	a := Singleton(name)
	a.Annotations[api.LeaseDurationAnnotation] = lease.Lasting.String()
	return a
}

// Locked returns an application that claims a lock.
func Locked(name, lock string) App {
	return App{Name: name, Record: lock, Replicas: 1, Annotations: Claim(api.LockAnnotation, lock)}
}

// Claim returns the annotations of one claim with the shortest lease.
func Claim(key, value string) map[string]string {
	return map[string]string{key: value, api.LeaseDurationAnnotation: lease.Short.String()}
}

// RecordName returns the name of the application's record.
func (a App) RecordName() string {
	if a.Record != "" {
		return a.Record
	}
	return a.Name
}

// Template returns the pod template of an application.
func Template(s *space.Space, a App) corev1.PodTemplateSpec {
	if a.Grace == 0 {
		a.Grace = 30
	}
	args := []string{"-listen=:8080", "-alone=" + a.RecordName()}
	container := corev1.Container{
		Name: "app", Image: cluster.Image, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: append(args, a.Args...),
		// A pod without resource requests may starve on a busy machine. Then its time stamps in the
		// record are late, and the application seems dead.
		Resources: corev1.ResourceRequirements{Requests: Quantities("20m", "16Mi")},
		Ports:     []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		Env: []corev1.EnvVar{field("POD_NAME", "metadata.name"), field("POD_UID", "metadata.uid"),
			field("NODE_NAME", "spec.nodeName")},
	}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": a.Name}, Annotations: a.Template},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &a.Grace,
			// The scheduler spreads the pods over the nodes, if the nodes have room.
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
				MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.Name}},
			}},
		},
	}
	if s.Dir != "" {
		container.Args = append([]string{"-record=/record"}, container.Args...)
		container.VolumeMounts = []corev1.VolumeMount{{Name: "record", MountPath: "/record"}}
		directory := corev1.HostPathDirectory
		template.Spec.Volumes = []corev1.Volume{{Name: "record", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: s.Mount(), Type: &directory},
		}}}
	}
	template.Spec.Containers = []corev1.Container{container}
	if a.Edit != nil {
		a.Edit(&template)
	}
	return template
}

// field returns an environment variable with a field of the pod.
func field(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: path},
	}}
}

// Meta returns the metadata of an application's workload.
func Meta(s *space.Space, a App) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: a.Name, Namespace: s.Namespace, Annotations: maps.Clone(a.Annotations),
		Labels: map[string]string{"app": a.Name}}
}

// Selector returns the label selector of an application's pods.
func (a App) Selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.Name}}
}

// Count returns the number of replicas.
func (a App) Count() *int32 {
	if a.Replicas == 0 {
		a.Replicas = 3
	}
	return &a.Replicas
}

// Deployment returns the application's Deployment.
func Deployment(s *space.Space, a App) *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: Meta(s, a),
		Spec:       appsv1.DeploymentSpec{Replicas: a.Count(), Selector: a.Selector(), Template: Template(s, a)},
	}
}

// StatefulSet returns the application's StatefulSet, which starts its pods in parallel.
func StatefulSet(s *space.Space, a App) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: Meta(s, a),
		Spec: appsv1.StatefulSetSpec{Replicas: a.Count(), Selector: a.Selector(), Template: Template(s, a),
			ServiceName: a.Name, PodManagementPolicy: appsv1.ParallelPodManagement},
	}
}

// Job returns the template of the application's Jobs.
func Job(s *space.Space, a App) batchv1.JobTemplateSpec {
	template := Template(s, a)
	template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	return batchv1.JobTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": a.Name}},
		Spec:       batchv1.JobSpec{Template: template},
	}
}

// CronJob returns a CronJob of the application, due each minute.
func CronJob(s *space.Space, a App) *batchv1.CronJob {
	return &batchv1.CronJob{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "CronJob"},
		ObjectMeta: Meta(s, a),
		Spec: batchv1.CronJobSpec{Schedule: "* * * * *", ConcurrencyPolicy: batchv1.AllowConcurrent,
			JobTemplate: Job(s, a)},
	}
}

// Service creates a Service for the Ready pods of an application.
func Service(s *space.Space, a App) *corev1.Service {
	service, err := s.Client.CoreV1().Services(s.Namespace).Create(s.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: a.Name},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": a.Name},
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	return service
}

// Deploy creates a Deployment, and waits until all containers of its pods run and one pod
// runs the application.
func Deploy(s *space.Space, a App) *appsv1.Deployment {
	s.Helper()
	d := Create(s, a)
	AwaitGated(s, a)
	AwaitRunning(s, a, space.StartTimeout)
	return d
}

// Create creates the application's Deployment, and does not wait for its pods.
func Create(s *space.Space, a App) *appsv1.Deployment {
	s.Helper()
	var d *appsv1.Deployment
	var err error
	// A test that cut a node may have cut the API server's connection to the webhook, too.
	// The API server notices the broken connection after half a minute. So Create tries
	// again, and prints each new error by [space.Space.Remark].
	tries, said := 0, ""
	s.Within(space.StartTimeout, func() bool {
		d, err = s.Client.AppsV1().Deployments(s.Namespace).Create(s.Context(), Deployment(s, a), metav1.CreateOptions{})
		tries++
		// If the API server did not call the webhook, the policy "carried" refuses the
		// workload. The template then lacks the annotations that the webhook copies into it.
		if !apierrors.IsInternalError(err) && (err == nil || !strings.Contains(err.Error(), "NotCarried: ")) {
			return true
		}
		if err.Error() != said {
			said = err.Error()
			s.Remark("create %s, try %d: %s", a.Name, tries, said)
		}
		return false
	})
	require.NoError(s, err)
	return d
}

// AwaitGated waits until each replica is a gated pod with all its containers running.
func AwaitGated(s *space.Space, a App) {
	s.Helper()
	s.Await(space.StartTimeout, "all pods of "+a.Name+" up", func() bool {
		var up int32
		for _, pod := range s.Pods(a.Name) {
			if pod.DeletionTimestamp == nil && pod.Labels[api.GatedLabel] == api.Gated && status.ContainersRun(pod) {
				up++
			}
		}
		return up == *a.Count()
	})
}

// AwaitRunning waits until a pod runs the application.
func AwaitRunning(s *space.Space, a App, timeout time.Duration) (now *record.Process) {
	s.Helper()
	return AwaitRunningPod(s, a.RecordName(), timeout)
}

// AwaitRunningPod waits until the application of a pod runs that has a record of its own. The argument
// "name" is the name of the pod and of the record. A busy machine may delay time stamps, so a single
// look at the record proves no end.
func AwaitRunningPod(s *space.Space, name string, timeout time.Duration) (now *record.Process) {
	s.Helper()
	s.Await(timeout, name+" runs", func() bool { now = s.Running(name); return now != nil })
	return now
}

// Restarts returns the sum of the restart counts of all containers of the application's
// pods. Restarts of the agent and of other init containers do not count.
func Restarts(s *space.Space, a App) (sum int32) {
	for _, pod := range s.Pods(a.Name) {
		for _, status := range pod.Status.ContainerStatuses {
			sum += status.RestartCount
		}
	}
	return sum
}

// Scale sets the replicas of an application's Deployment.
func Scale(s *space.Space, a App, replicas int32) {
	s.Helper()
	// The Deployment's controller also writes the Deployment, so an update could
	// conflict. Scale sends a patch, as kubectl scale does.
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := s.Client.AppsV1().Deployments(s.Namespace).Patch(s.Context(), a.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	require.NoError(s, err)
}

// Suffering returns a singleton for tests of faults that cost the holder its slot.
func Suffering(name string) App {
	a := Singleton(name)
	a.Annotations[api.LeaseDurationAnnotation] = lease.Fault.String()
	return a
}

// Quantities returns the list of the given amounts of CPU and memory.
func Quantities(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// DeletePod deletes a pod and does not wait.
func DeletePod(s *space.Space, pod *corev1.Pod) {
	s.Helper()
	err := s.Client.CoreV1().Pods(s.Namespace).Delete(s.Context(), pod.Name, metav1.DeleteOptions{})
	require.NoError(s, err)
}
