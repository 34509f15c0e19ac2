// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"cmp"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
)

// nobody is the user of the injected containers in a pod that would make them root. In
// other pods they have no user of their own: the image names a user by number, and a
// namespace may give out user ids.
const nobody int64 = 65532

// foreign are fields that the injected containers never have. The image knows its command.
// With a startup probe, crashed main containers never restart after the kubelet did
// (kubernetes#137146).
var foreign = []string{"command", "livenessProbe", "readinessProbe", "startupProbe"}

// patchSidecar adds the injected containers, and keeps them as the webhook makes them.
func patchSidecar(p *Pod, d *patch.Document) {
	for _, c := range p.injected() {
		p.put(d, c)
		i, _ := d.Index("name", c.Name, "spec", "initContainers")
		for _, field := range foreign {
			d.Remove("spec", "initContainers", i, field)
		}
		if c.Lifecycle == nil {
			d.Remove("spec", "initContainers", i, "lifecycle")
		} else {
			d.Set(c.Lifecycle, "spec", "initContainers", i, "lifecycle") // and no other hook
		}
	}
}

// injected returns the containers that the gate needs, in their order.
func (p *Pod) injected() []corev1.Container {
	if p.Request.Gate != api.GatePod {
		return []corev1.Container{p.agent()}
	}
	// The first runs once before the pod's containers start, and again before all of
	// them are started anew: so the agent tells that from a restart of its own. The
	// last ends when the agent holds the slot; then the kubelet starts the application.
	turn := p.helper(api.TurnContainer, api.TurnRole, false)
	wait := p.helper(api.WaitContainer, api.WaitRole, true)
	return []corev1.Container{turn, p.agent(), wait}
}

// helper returns an injected container that runs a small role of the agent and ends.
func (p *Pod) helper(name, role string, readOnly bool) corev1.Container {
	return corev1.Container{
		Name:            name,
		Image:           p.AgentImage,
		Args:            []string{role},
		Resources:       p.resources(),
		SecurityContext: p.security(),
		VolumeMounts:    []corev1.VolumeMount{sharedMount(readOnly)},
	}
}

// agent returns the sidecar that holds the slot. The sidecar has no probes; the shim waits
// for the agent instead.
func (p *Pod) agent() corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	mounts := []corev1.VolumeMount{{Name: api.CredentialsVolume, MountPath: api.CredentialsPath, ReadOnly: true}}
	if p.Request.Gate != api.GateReadiness {
		mounts = append([]corev1.VolumeMount{sharedMount(false)}, mounts...)
	}
	return corev1.Container{
		Name:               api.AgentContainer,
		Lifecycle:          p.installs(),
		Image:              p.AgentImage,
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

// installs returns the hook that copies the agent's binary to the gated containers. The
// kubelet starts no further container before the hook has ended. An init container would
// do as well, but the kubelet takes a second to see its end.
func (p *Pod) installs() *corev1.Lifecycle {
	if !p.Request.Shims() {
		return nil
	}
	return &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
		Exec: &corev1.ExecAction{Command: []string{api.ImageBinary, api.InstallRole}},
	}}
}

// agentArgs returns the arguments of the agent.
func (p *Pod) agentArgs() []string {
	args := api.DefaultRunArgs()
	args.Slots = p.slots()
	args.LeaseDuration = cmp.Or(p.Request.LeaseDuration, api.DefaultLeaseDuration)
	args.Readiness, args.Grace, args.Workload = p.Request.Standbys(), p.grace(), p.workloadName()
	for _, i := range p.gated {
		args.Containers = append(args.Containers, p.Spec.Containers[i].Name)
	}
	args.InitContainers, args.Ports, args.Probes = p.initNames(), p.ports(), p.probesByContainer()
	if p.Request.Shims() {
		args.Install = api.AgentBinary
	} else {
		args.Gate = p.Request.Gate
	}
	if p.Spec.HostNetwork {
		// The ports of the node belong to no pod.
		args.Listen = ""
	}
	// A runtime class may run pods in virtual machines, and its name does not say.
	args.OwnKernel = p.Spec.RuntimeClassName != nil
	return args.Args()
}

// grace returns the time that a deletion of the pod would leave the application to stop. A
// yield leaves as much. Zero would mean the agent's default.
func (p *Pod) grace() time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := p.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = max(*own, 1)
	}
	return time.Duration(min(seconds, math.MaxInt32)) * time.Second
}

// workloadName returns the workload whose holder the agent forwards ports to. A bare pod
// with generateName has no fellows; the kubelet fills its name in.
func (p *Pod) workloadName() string {
	w := p.Workload
	if w.Name == "" {
		w.Name = "$(" + api.PodNameEnv + ")"
	}
	return w.String()
}

// put puts an injected container where it belongs. The place is behind the pod's own init
// containers, so they run when they ran before. The kubelet stops sidecars in the reverse
// order of their start, so a mesh's proxy still carries the agent's last write. A gated
// init container has to find the agent, and the agent has to find the note turned.
func (p *Pod) put(d *patch.Document, c corev1.Container) {
	list := []any{"spec", "initContainers"}
	before := -1
	after := p.initNames()
	if c.Name == api.TurnContainer {
		after = append(after, api.AgentContainer)
	}
	for _, name := range after {
		if i, ok := d.Index("name", name, list...); ok && (before < 0 || i < before) {
			before = i
		}
	}
	at, there := d.Index("name", c.Name, list...)
	switch {
	case before < 0, there && at < before:
	case there:
		value := d.Get(append(list, at)...)
		d.Delete(at, list...)
		d.Insert(value, before, list...)
	default:
		d.Insert(c, before, list...)
	}
	d.Ensure("name", c, list...)
}

// security returns a security context for the Pod Security standard "restricted".
func (p *Pod) security() *corev1.SecurityContext {
	yes, no := true, false
	context := &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		ReadOnlyRootFilesystem:   &yes,
		RunAsNonRoot:             &yes,
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if of := p.Spec.SecurityContext; of != nil && of.RunAsUser != nil && *of.RunAsUser == 0 {
		user := nobody
		context.RunAsUser = &user
	}
	return context
}

func fromField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{
		Name:      name,
		ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}},
	}
}
