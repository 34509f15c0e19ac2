// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"cmp"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/metaparticle-io/metaparticle/api"
)

// parts is what is known of a pod that claims: it is judged by that, and the
// injected containers are made from it.
type parts struct {
	pod      *corev1.Pod
	request  api.Request
	workload api.Workload
	// gated are indices of the pod's containers.
	gated []int
	// inits are indices of its init containers.
	inits  []int
	image  string
	limits []corev1.LimitRange
	// probes are those of the gated containers, as they were declared.
	probes map[string]api.Probes
}

func (p parts) slots() []string { return p.request.Slots(p.workload) }

// agent holds the lease. It has no probes; the gate waits instead.
func (p parts) agent() corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	mounts := []corev1.VolumeMount{{Name: api.CredentialsVolume, MountPath: api.CredentialsPath, ReadOnly: true}}
	if p.request.Gate != api.GateReadiness {
		mounts = slices.Insert(mounts, 0, corev1.VolumeMount{Name: api.Volume, MountPath: api.MountPath})
	}
	return corev1.Container{
		Name:               api.AgentContainer,
		Lifecycle:          p.installed(),
		Image:              p.image,
		Args:               p.agentArgs(),
		RestartPolicy:      &always,
		RestartPolicyRules: p.restartRules(),
		Env: []corev1.EnvVar{
			fromField(api.PodNameEnv, "metadata.name"),
			fromField(api.PodUIDEnv, "metadata.uid"),
			fromField(api.PodNamespaceEnv, "metadata.namespace"),
			fromField(api.PodIPEnv, "status.podIP"),
		},
		Resources:       p.resources(),
		SecurityContext: p.security(),
		VolumeMounts:    mounts,
	}
}

// installed holds the kubelet up until the agent's binary is where gated
// containers start it: it starts none of them before the hook has ended. An init
// container would do as well, if the kubelet did not take a second to see its end.
func (p parts) installed() *corev1.Lifecycle {
	if !p.request.Shims() {
		return nil
	}
	return &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
		Exec: &corev1.ExecAction{Command: []string{api.ImageBinary, api.InstallRole}},
	}}
}

// agentArgs returns what the agent is told.
func (p parts) agentArgs() []string {
	args := api.DefaultRunArgs()
	args.Slots = p.slots()
	args.LeaseDuration = cmp.Or(p.request.LeaseDuration, api.DefaultLeaseDuration)
	args.Readiness, args.Grace, args.Workload = p.request.Standbys(), p.grace(), p.workloadName()
	for _, i := range p.gated {
		args.Containers = append(args.Containers, p.pod.Spec.Containers[i].Name)
	}
	args.InitContainers, args.Ports, args.Probes = p.initNames(), p.ports(), p.probes
	if p.request.Shims() {
		args.Install = api.AgentBinary
	} else {
		args.Gate = p.request.Gate
	}
	if p.pod.Spec.HostNetwork {
		// The node's ports are not ours to take.
		args.Listen = ""
	}
	// A runtime class may be one that runs pods in virtual machines; nobody can tell.
	args.OwnKernel = p.pod.Spec.RuntimeClassName != nil
	return args.Args()
}

// grace is what the pod's deletion would leave the application to stop in; a
// yield leaves it as much. Zero would mean the agent's default.
func (p parts) grace() time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := p.pod.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = max(*own, 1)
	}
	return time.Duration(min(seconds, math.MaxInt32)) * time.Second
}

// workloadName is what tells the agent whose ports to forward. A bare pod with
// generateName is nobody's fellow; the kubelet fills its name in.
func (p parts) workloadName() string {
	w := p.workload
	if w.Name == "" {
		w.Name = "$(" + api.PodNameEnv + ")"
	}
	return w.String()
}

// ports are the TCP ports that gated containers declare, which standbys
// forward. A StatefulSet's pods are addressed one by one (its Service is
// headless): pod-1 must not answer as pod-0, unless somebody says so.
func (p parts) ports() []int {
	if !p.request.Shims() {
		return nil
	}
	if p.workload.Group == "apps" && p.workload.Kind == "StatefulSet" && p.request.Readiness == "" {
		return nil
	}
	var ports []int
	for _, i := range p.gated {
		for _, port := range p.pod.Spec.Containers[i].Ports {
			if tcp(port) {
				ports = append(ports, int(port.ContainerPort))
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// unprivilegedPorts lets the agent, which is not root, listen on ports below
// 1024 in the holder's stead. Some runtimes allow that to everybody in a pod,
// and some do not; a standby that cannot listen is never Ready, and a rollout
// that waits for it never ends. Kubernetes counts the setting as safe, and Pod
// Security allows it everywhere. Zero is no stricter than any runtime's own.
var unprivilegedPorts = corev1.Sysctl{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}

// judgeLowPorts refuses a low port on the node's network, where a pod may not
// have the setting.
func (p parts) judgeLowPorts(refusals *Refusals) {
	if port := p.lowPort(); port != 0 && p.pod.Spec.HostNetwork {
		refusals.add(HostNetwork, "the pod sets hostNetwork and declares port %d", port)
	}
}

// opensLowPorts: the pod needs the setting, and does not have one of its own.
func (p parts) opensLowPorts() bool {
	if of := p.pod.Spec.SecurityContext; of != nil && slices.ContainsFunc(of.Sysctls, func(s corev1.Sysctl) bool {
		return s.Name == unprivilegedPorts.Name
	}) {
		return false
	}
	return p.lowPort() != 0
}

// lowPort returns a port below 1024 that a standby would forward, or zero.
func (p parts) lowPort() int {
	for _, port := range p.ports() {
		if port < 1024 && p.request.Standbys() != api.ReadinessHolder {
			return port
		}
	}
	return 0
}

// nobody is the user of the injected containers where the pod would make them
// root. Elsewhere they inherit: the image names a user by number, and a
// namespace that gives out user ids of its own must be free to.
const nobody int64 = 65532

// security satisfies the Pod Security standard "restricted".
func (p parts) security() *corev1.SecurityContext {
	yes, no := true, false
	context := &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		ReadOnlyRootFilesystem:   &yes,
		RunAsNonRoot:             &yes,
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if of := p.pod.Spec.SecurityContext; of != nil && of.RunAsUser != nil && *of.RunAsUser == 0 {
		user := nobody
		context.RunAsUser = &user
	}
	return context
}

// volumeSize bounds the shared volume: the binary, a socket and some notes.
var volumeSize = resource.MustParse("64Mi")

func sharedVolume() corev1.Volume {
	size := volumeSize.DeepCopy()
	return corev1.Volume{
		Name:         api.Volume,
		VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}},
	}
}

// gateMount is read-only: a socket can be connected to all the same.
func gateMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: api.Volume, MountPath: api.MountPath, ReadOnly: true}
}

// tokenSeconds is the shortest life of a token that the kubelet's own volumes
// ask for; it is renewed long before.
const tokenSeconds int64 = 3607

// credentialsVolume is what the service account admission would mount
// everywhere, for the agent alone: pods may switch that off.
func credentialsVolume() corev1.Volume {
	seconds := tokenSeconds
	return corev1.Volume{
		Name: api.CredentialsVolume,
		VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{
				Items: []corev1.DownwardAPIVolumeFile{{
					Path:     "namespace",
					FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
				}},
			}},
		}}},
	}
}

func fromField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{
		Name:      name,
		ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}},
	}
}
