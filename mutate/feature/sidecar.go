// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"cmp"
	"math"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// nobody is a user id. The patch sets this user id for the injected containers of a pod whose own
// setting would make them root. In other pods the patch sets no user, because the agent's image
// names a user by number, and some clusters assign user ids by namespace.
const nobody int64 = 65532

// foreign lists the fields that patchSidecar removes from the injected containers, because only
// another injector can have set these fields. An injected container runs the command of the agent's
// image. If the agent had a startup probe, crashed main containers would never start again after a
// restart of the kubelet (kubernetes#137146).
var foreign = []string{"command", "livenessProbe", "readinessProbe", "startupProbe"}

// sidecar makes the injected containers of a pod.
type sidecar struct{ *Pod }

// patchSidecar adds the injected containers. If an earlier pass has added them, the function restores what
// another webhook has changed since, except for what [sidecar.asLeft] leaves to other webhooks.
func patchSidecar(p *Pod, d *patch.Document) {
	s := sidecar{p}
	for _, c := range s.containers() {
		if there := s.injected(c.Name); there != nil {
			s.restore(d, s.asLeft(c, there))
		} else {
			s.put(d, c)
		}
	}
}

// injected returns the injected container of this name as the webhook received it; nil for none.
func (s sidecar) injected(name string) *corev1.Container {
	i := slices.IndexFunc(s.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Spec.InitContainers[i]
}

// asLeft returns an injected container with what another webhook may have decided about it since an
// earlier pass: the place of its image, its resources, and a security context that is stricter, or has the
// user of the namespace. What the container runs, and whether the kubelet restarts it, is never theirs.
func (s sidecar) asLeft(c corev1.Container, there *corev1.Container) corev1.Container {
	if image.Same(there.Image, c.Image) {
		c.Image = there.Image
	}
	if !isOwnSize(there.Resources) {
		c.Resources = there.Resources
	}
	of := there.SecurityContext
	if of == nil {
		return c
	}
	if of.Capabilities != nil && slices.Contains(of.Capabilities.Drop, "ALL") {
		c.SecurityContext.Capabilities = &corev1.Capabilities{Drop: of.Capabilities.Drop}
	}
	if of.SeccompProfile != nil && of.SeccompProfile.Type == corev1.SeccompProfileTypeLocalhost {
		c.SecurityContext.SeccompProfile = of.SeccompProfile
	}
	if of.RunAsUser != nil && *of.RunAsUser != 0 {
		c.SecurityContext.RunAsUser = of.RunAsUser
	} else if of.RunAsUser != nil {
		c.SecurityContext.RunAsUser = new(nobody)
	}
	return c
}

// warnOfImages warns of an image of an injected container that the patch replaces by the webhook's own.
func warnOfImages(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	if p.isTemplate() {
		return nil // a template has no injected container
	}
	s := sidecar{p}
	for _, c := range s.containers() {
		if there := s.injected(c.Name); there != nil && !image.Same(there.Image, c.Image) {
			warnings.Add(reason.ImageRestored, "container %q had the image %s, and has %s again", c.Name, there.Image, c.Image)
		}
	}
	return warnings
}

// containers returns the injected containers that the pod needs, in the order of their start.
func (s sidecar) containers() []corev1.Container {
	var all []corev1.Container
	if len(s.Request.After) > 0 {
		all = append(all, s.waiting(api.AfterContainer, api.ConditionArgs{
			Conditions: s.Request.After, Credentials: api.CredentialsPath,
		}.Args()))
	}
	if s.Request.Barrier.Size > 0 {
		all = append(all, s.waiting(api.BarrierContainer, api.BarrierArgs{
			Barrier: s.Request.Barrier, Run: s.Run.UID, LeaseDuration: s.Request.BarrierDuration(),
			WaitAtMost: s.Request.WaitAtMost, Credentials: api.CredentialsPath,
		}.Args()))
	}
	return append(all, s.gate()...)
}

// gate returns the containers of the pod's gate; none for a pod that claims nothing.
func (s sidecar) gate() []corev1.Container {
	switch {
	case !s.Request.Claims():
		return nil
	case s.Request.Gate != api.GatePod:
		return []corev1.Container{s.agent()}
	}
	// The first container runs at the pod's start, and at each restart of all containers.
	// So the agent can distinguish a restart of all containers from a restart of itself
	// alone. The last container ends once the agent holds the slot, and then the kubelet
	// starts the application.
	turn := s.helper(api.TurnContainer, api.TurnRole, false)
	wait := s.helper(api.WaitContainer, api.WaitRole, true)
	return []corev1.Container{turn, s.agent(), wait}
}

// waiting returns a container that waits for the conditions, or at the barrier, and then ends. The
// agent's container starts only after that end, so the pod competes for no slot while it waits.
func (s sidecar) waiting(name string, args []string) corev1.Container {
	return corev1.Container{
		Name:            name,
		Image:           s.AgentImage,
		Args:            args,
		Env:             podFacts(),
		Resources:       resourcesOf(s.Pod),
		SecurityContext: s.security(),
		VolumeMounts:    []corev1.VolumeMount{credentialsMount()},
	}
}

// helper returns an injected container that runs a small role of the agent and ends.
func (s sidecar) helper(name, role string, readOnly bool) corev1.Container {
	return corev1.Container{
		Name:            name,
		Image:           s.AgentImage,
		Args:            []string{role},
		Resources:       resourcesOf(s.Pod),
		SecurityContext: s.security(),
		VolumeMounts:    []corev1.VolumeMount{sharedMount(readOnly)},
	}
}

// agent returns the sidecar that holds the slot. The sidecar has no probes, because the shim itself
// waits for the agent.
func (s sidecar) agent() corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	mounts := []corev1.VolumeMount{credentialsMount()}
	if sharesVolume(s.Pod) {
		mounts = append([]corev1.VolumeMount{sharedMount(false)}, mounts...)
	}
	if s.Request.Gate == api.GateProgram && hasLocalVolume(s.Pod) {
		mounts = append(mounts, corev1.VolumeMount{Name: api.LocalVolume, MountPath: api.LocalMountPath})
	}
	return corev1.Container{
		Name:               api.AgentContainer,
		Lifecycle:          s.hook(),
		Image:              s.AgentImage,
		Args:               s.agentArgs(),
		RestartPolicy:      &always,
		RestartPolicyRules: s.restartRules(),
		Env:                s.environment(),
		Resources:          resourcesOf(s.Pod),
		SecurityContext:    s.security(),
		VolumeMounts:       mounts,
	}
}

// environment returns the variables of the agent's container. The labels of the pod are those at the
// start of the container. The labels of the node's zone and region are there by then: the API
// server adds them when it binds the pod to the node.
func (s sidecar) environment() []corev1.EnvVar {
	all := append(podFacts(), fromField(api.PodIPEnv, "status.podIP"))
	if key := s.Request.Prefer.Key; key != "" {
		all = append(all, fromField(api.PreferEnv, "metadata.labels['"+key+"']"))
	}
	return all
}

// hook returns the postStart hook of the agent's container. The kubelet starts no further
// container before the hook has ended. An init container could do the same work, but the kubelet
// takes a second to notice the end of an init container.
//
// With shims, the hook copies the program of the shims into the shared volume. With the local API,
// the hook ends once that API serves.
func (s sidecar) hook() *corev1.Lifecycle {
	command := []string{api.AgentProgram, api.InstallRole}
	switch {
	case s.Request.Gate == api.GateProgram && s.Spec.HostNetwork:
		command = []string{api.AgentProgram, api.ReadyRole, api.LocalSocket}
	case s.Request.Gate == api.GateProgram:
		command[1] = api.ReadyRole
	case !s.Request.Shims():
		return nil
	}
	return &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: command}}}
}

// localArgs returns the arguments of the agent that serves the local API.
func (s sidecar) localArgs() []string {
	args := api.DefaultLocalArgs()
	args.Claims, args.LeaseDuration, args.OwnKernel = s.Request.Claimed, s.Request.Duration(), s.ownKernel()
	if len(api.BarriersOf(s.Request.Claimed)) > 0 {
		args.Run = s.Run.UID
	}
	if api.Leashed(s.Request) {
		args.Containers = gatedNames(s.Pod)
	}
	if hasLocalVolume(s.Pod) {
		args.Socket = api.LocalSocket
	}
	if s.Spec.HostNetwork {
		args.Port = 0 // each process of the node could connect to the port
	}
	return args.Args()
}

// ownKernel reports whether the pod may run in a virtual machine of its own. The name of a
// runtime class does not show whether the class uses virtual machines, so the result is
// true for every class.
func (s sidecar) ownKernel() bool { return s.Spec.RuntimeClassName != nil }

// agentArgs returns the arguments of the agent.
func (s sidecar) agentArgs() []string {
	if s.Request.Gate == api.GateProgram {
		return s.localArgs()
	}
	args := api.DefaultRunArgs()

	// The claim.
	args.Slots = s.slots()
	args.Any = s.Request.Any()
	if s.run() != "" && s.indexed() {
		args.Any = false
		args.Shard = s.Annotations[batchv1.JobCompletionIndexAnnotation]
	}
	args.Settings = s.Request.Settings
	args.LeaseDuration, args.Readiness = s.Request.Duration(), s.standbys()
	args.OnceKey = cmp.Or(s.onceKey(), s.run())

	// The pod.
	args.Job = jobOf(s.Facts)
	args.Workload = s.workloadName()
	args.Containers = gatedNames(s.Pod)
	args.InitContainers = s.initNames()
	args.Ports = s.ports()
	args.Probes = s.probesByContainer()
	args.Grace = s.grace()
	args.OwnKernel = s.ownKernel()
	args.Ends = s.Request.Shims() && s.Spec.RestartPolicy == corev1.RestartPolicyNever && !slices.ContainsFunc(s.places(), s.outlivesLoss)

	// The gate.
	if s.Request.Shims() {
		args.Install = api.ShimProgram
	} else {
		args.Gate = s.Request.Gate
	}
	if s.Spec.HostNetwork {
		args.Listen = "" // a pod must not take a port of the node for its agent
	}

	// Standbys and rollouts.
	if delay := s.Request.EndpointDelay; delay != nil {
		args.EndpointDelay = *delay
	}
	if s.Request.TakesTurns() {
		args.Revision = s.Revision
		args.MinReady = s.MinReady
		args.ReplacesUnready = s.ReplacesUnready
	}
	return args.Args()
}

// standbys returns the readiness of standbys. A standby of a sharded workload forwards to no
// holder, because each holder has a shard of its own. A pod that declares no ports expects no
// connections, so the standby can be Ready for the sake of rollouts.
func (s sidecar) standbys() api.Readiness {
	if s.Request.Shards() > 0 && s.Request.Readiness == "" && !declaresPorts(s.Pod) {
		return api.ReadinessAll
	}
	return s.Request.Standbys()
}

// grace returns the time that the application gets to stop after the pod's deletion. A
// yield gives the same time. The result is never zero, which would mean the agent's
// default.
func (s sidecar) grace() time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := s.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = max(*own, 1)
	}
	return time.Duration(min(seconds, math.MaxInt32)) * time.Second
}

// workloadName returns the workload within which the agent forwards ports. A bare pod with
// generateName is a workload of its own, and has no name yet. So the result contains a variable,
// which the kubelet replaces by the pod's name.
func (s sidecar) workloadName() string {
	w := s.Workload
	if w.Name == "" {
		w.Name = "$(" + api.PodNameEnv + ")"
	}
	return w.String()
}

// put inserts an injected container behind the pod's own init containers, so that their order
// stays. The kubelet stops sidecars in the reverse order of their start. So a mesh's proxy, which
// started before the agent, still carries the agent's last write. If an init container is gated,
// the injected container comes in front of the gated container. If a main container is the proxy of
// a mesh, the containers that wait come before all other init containers. Such containers wait for
// conditions, or at a barrier. The function also moves an injected container that comes too late in
// the list.
func (s sidecar) put(d *patch.Document, c corev1.Container) {
	list := []any{"spec", "initContainers"}
	before := -1
	if s.hasProxy() && len(s.Spec.InitContainers) > 0 {
		switch i, ok := d.Index("name", api.AfterContainer, list...); {
		case c.Name == api.AfterContainer, c.Name == api.BarrierContainer && !ok:
			before = 0
		case c.Name == api.BarrierContainer:
			before = i + 1
		}
	}
	for _, name := range s.behind(c.Name) {
		if i, ok := d.Index("name", name, list...); ok && (before < 0 || i < before) {
			before = i
		}
	}
	at, there := d.Index("name", c.Name, list...)
	switch {
	case before < 0, there && at <= before:
	case there:
		d.Move(at, before, list...)
	default:
		d.Insert(c, before, list...)
	}
	d.Ensure("name", c, list...)
}

// restore brings an injected container of an earlier pass to its place, and restores its fields. Variables
// and mounts of other webhooks stay beside ours.
func (s sidecar) restore(d *patch.Document, c corev1.Container) {
	env, mounts, rules, hook, security := c.Env, c.VolumeMounts, c.RestartPolicyRules, c.Lifecycle, c.SecurityContext
	c.Env, c.VolumeMounts, c.RestartPolicyRules, c.Lifecycle, c.SecurityContext = nil, nil, nil, nil, nil
	s.put(d, c)
	i, _ := d.Index("name", c.Name, "spec", "initContainers")
	at := func(field ...any) []any { return append([]any{"spec", "initContainers", i}, field...) }
	for _, v := range env {
		d.Replace("name", v, at("env")...)
	}
	for _, m := range mounts {
		d.Replace("mountPath", m, at("volumeMounts")...)
	}
	d.Remove(at("securityContext", "capabilities", "add")...) // the merge keeps other members
	d.Merge(security, at("securityContext")...)
	for _, field := range foreign {
		d.Remove(at(field)...)
	}
	if c.RestartPolicy == nil {
		// With the restartPolicy of another injector, the container would be a sidecar. The
		// kubelet waits only for the start of a sidecar, but for the end of any other init
		// container.
		d.Remove(at("restartPolicy")...)
	}
	// Another hook or rule would be obeyed beside ours, or before it.
	if len(rules) == 0 {
		d.Remove(at("restartPolicyRules")...)
	} else {
		d.Set(rules, at("restartPolicyRules")...)
	}
	if hook == nil {
		d.Remove(at("lifecycle")...)
	} else {
		d.Set(hook, at("lifecycle")...)
	}
}

// behind returns the names of the containers that must come after an injected container, whether or
// not the pod has these containers.
func (s sidecar) behind(injected string) []string {
	switch behind := s.initNames(); injected {
	case api.AfterContainer:
		return append(behind, api.BarrierContainer, api.TurnContainer, api.AgentContainer)
	case api.BarrierContainer:
		return append(behind, api.TurnContainer, api.AgentContainer)
	case api.TurnContainer:
		return append(behind, api.AgentContainer)
	default:
		return behind
	}
}

// hasProxy reports whether a main container is the proxy of a mesh. An init container of that mesh
// may redirect all connections to the proxy, which starts only after all init containers. So a
// container that waits for conditions, or at a barrier, comes before the pod's own init containers.
func (s sidecar) hasProxy() bool {
	return slices.ContainsFunc(s.Spec.Containers, func(c corev1.Container) bool { return slices.Contains(meshes, c.Name) })
}

// restartRules returns the restart rules of the agent's container. With the gate "pod" the
// application may be a process that only the kubelet can signal, so the kubelet restarts
// all containers.
func (s sidecar) restartRules() []corev1.ContainerRestartRule {
	if s.Request.Gate != api.GatePod {
		return nil
	}
	return []corev1.ContainerRestartRule{{
		Action: corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{
			Operator: corev1.ContainerRestartRuleOnExitCodesOpIn,
			Values:   []int32{api.RestartCode},
		},
	}}
}

// security returns a security context for the Pod Security standard "restricted".
func (s sidecar) security() *corev1.SecurityContext {
	yes, no := true, false
	context := &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		ReadOnlyRootFilesystem:   &yes,
		RunAsNonRoot:             &yes,
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if of := s.Spec.SecurityContext; of != nil && of.RunAsUser != nil && *of.RunAsUser == 0 {
		user := nobody
		context.RunAsUser = &user
	}
	return context
}

// podFacts returns the variables with the pod's name, UID and namespace, for an injected container.
func podFacts() []corev1.EnvVar {
	return []corev1.EnvVar{
		fromField(api.PodNameEnv, "metadata.name"),
		fromField(api.PodUIDEnv, "metadata.uid"),
		fromField(api.PodNamespaceEnv, "metadata.namespace"),
	}
}

func fromField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{
		Name:      name,
		ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}},
	}
}
