// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// volumeSize bounds the shared volume, which contains the program of the shims, sockets and notes.
var volumeSize = resource.MustParse("64Mi")

// tokenSeconds is the lifetime that Kubernetes' own volumes request for a service account
// token. The kubelet renews that token long before its end.
const tokenSeconds int64 = 3607

// evictable lists the volumes that do not keep the cluster autoscaler from removing the pod's node.
// For any other emptyDir on disk the autoscaler keeps the node, because the data would be lost.
const evictable = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"

// backupExcludes lists the volumes that Velero's file-system backup leaves out. A restored volume
// would give the agent the notes of another pod.
const backupExcludes = "backup.velero.io/backup-volumes-excludes"

// judgeMounts refuses a container that mounts an injected volume, except for the mount that
// its shim needs. A gated container may mount nothing else at the path of the shared volume.
func judgeMounts(p *Pod, at place) reason.Refusals {
	var refusals reason.Refusals
	c, gated := p.container(at), p.getsShim(at)
	for _, m := range c.VolumeMounts {
		to := absolute(m.MountPath)
		switch {
		case m.Name == api.Volume && gated && m.ReadOnly && to == api.MountPath && m.SubPath == "" && m.SubPathExpr == "":
		case m.Name == api.Volume || m.Name == api.CredentialsVolume:
			refusals.Add(reason.NameTaken, "container %q mounts the volume %q", c.Name, m.Name)
		case gated && shared(to):
			refusals.Add(reason.MountTaken, "container %q mounts %q at %s", c.Name, m.Name, m.MountPath)
		}
	}
	for _, d := range c.VolumeDevices {
		if gated && shared(absolute(d.DevicePath)) {
			refusals.Add(reason.MountTaken, "container %q has the device %q at %s", c.Name, d.Name, d.DevicePath)
		}
	}
	if gated && shared(absolute(c.TerminationMessagePath)) {
		refusals.Add(reason.MountTaken, "container %q has its termination message at %s", c.Name, c.TerminationMessagePath)
	}
	return refusals
}

// absolute returns the path at which the kubelet mounts a volume. The API server admits a relative
// path, and the kubelet takes this path for a path below the root.
func absolute(mountPath string) string { return path.Join("/", mountPath) }

// shared reports whether the absolute path is the path of the shared volume, or a path in it.
func shared(to string) bool { return to == api.MountPath || strings.HasPrefix(to, api.MountPath+"/") }

// patchVolumes adds the volumes of the gate, and mounts the shared volume where a shim
// needs its program.
func patchVolumes(p *Pod, d *patch.Document) {
	for _, at := range p.places() {
		d.Ensure("name", sharedMount(true), at.path("volumeMounts")...)
	}
	if p.Request.Claims() && sharesVolume(p) {
		d.Ensure("name", sharedVolume(), "spec", "volumes")
		patchListed(p, d, evictable)
		patchListed(p, d, backupExcludes)
	}
	d.Ensure("name", credentialsVolume(), "spec", "volumes")
}

// patchListed adds the shared volume to an annotation that lists volumes. The user's text stays as it
// is, because the autoscaler and Velero compare the names between the commas byte by byte: without a
// space that the user wrote, another volume's data could be lost.
func patchListed(p *Pod, d *patch.Document, key string) {
	switch listed := p.Annotations[key]; {
	case listed == "":
		d.Set(api.Volume, "metadata", "annotations", key)
	case !slices.Contains(strings.Split(listed, ","), api.Volume):
		d.Set(listed+","+api.Volume, "metadata", "annotations", key)
	}
}

// sharesVolume reports whether containers of the gate share a volume with the agent.
func sharesVolume(p *Pod) bool { return api.HasShims(p.Request) || p.Request.Gate == api.GatePod }

func sharedVolume() corev1.Volume {
	size := volumeSize.DeepCopy()
	return corev1.Volume{
		Name:         api.Volume,
		VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}},
	}
}

// hasLocalVolume reports whether the pod asks for the socket of the local API.
func hasLocalVolume(p *Pod) bool { return slices.ContainsFunc(p.Spec.Volumes, isLocalVolume) }

// isLocalVolume reports whether the volume is for the socket of the local API.
func isLocalVolume(v corev1.Volume) bool { return v.Name == api.LocalVolume }

// sharedMount returns the mount of the shared volume. A read-only mount is enough to
// connect to a socket.
func sharedMount(readOnly bool) corev1.VolumeMount {
	return corev1.VolumeMount{Name: api.Volume, MountPath: api.MountPath, ReadOnly: readOnly}
}

// credentialsMount returns the mount of the volume with the agent's service account token. Only
// injected containers have this mount.
func credentialsMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: api.CredentialsVolume, MountPath: api.CredentialsPath, ReadOnly: true}
}

// credentialsVolume returns a copy of the volume that the API server adds to pods for the
// service account. The agent needs the volume even in a pod that sets
// automountServiceAccountToken to false.
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
