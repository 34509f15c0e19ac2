// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package software

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/image/apps"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// Software describes one of the images of test/image/apps, as people deploy it.
type Software struct {
	Name string
	// Port is the port of the software's service; 0 means none.
	Port int32
	// Data is the mount point of the software's volume; empty means none.
	Data string
	// Group is the group that owns the volume, if the image's user is not root.
	Group int64
	// Edit changes the pod template after all other fields have changed the template.
	Edit func(*corev1.PodTemplateSpec)
	// The function Serves reports whether the application of a pod does its work.
	Serves func(*space.Space, *corev1.Pod) bool
	// Journal is a series of numbers that must never be lost. If Journal is nil, the test
	// writes no numbers.
	Journal *Journal
	// Started is a line that each process of the application logs once it has started.
	// Boots is the number of these processes. The application may serve before it has
	// logged the lines. If Started is empty, the application logs no such line.
	Started string
	Boots   int
	// Reloaded is the application's log line after SIGHUP. If Reloaded is empty, the test
	// sends no SIGHUP.
	Reloaded string
	// The function Check inspects the trial after the last fault; nil means no inspection.
	Check func(*Trial)
	// Unordered reports that several processes log at once, so the order of the lines
	// differs between two runs.
	Unordered bool
	// The pattern Noise matches log lines about the tests' own requests, and log lines that
	// the application writes sometimes more and sometimes less often. Nil matches no line.
	Noise *regexp.Regexp
	// Deaf reports that the application does not handle SIGTERM. As PID 1 the application
	// survives the signal, but behind a gate the signal ends the application. The gate may
	// make no other difference.
	Deaf bool
}

// ServeTimeout bounds a start until the application serves. A JVM takes five seconds, and
// several times as long beside other tests on a small machine. There a pod may also lose its slot
// once, and start the JVM again.
const ServeTimeout = 3 * time.Minute

// Test checks two promises for a real application: at most one pod runs it at a time, and the gate
// changes nothing else. The two parts do not call t.Parallel, because Go would then start them
// after all other parallel tests. The parts must start early, because they take the longest.
func (w Software) Test(t *testing.T) {
	cluster.NeedLab(t, "it makes images, kills processes of pods and hears of them from the kernel")
	t.Parallel()
	if Every || faults[w.Name] != nil {
		t.Run("one at a time, whatever is killed", func(t *testing.T) {
			w.survives(t)
		})
	}
	t.Run("the same as without the annotation", func(t *testing.T) {
		w.compare(t)
	})
}

// shelf has a function for each software, by the software's name. The function pushes the
// software's image once, and returns the image's reference.
var shelf sync.Map

// reference returns the reference of the software's image. The first call makes and
// pushes the image.
func (w Software) reference(t *testing.T) string {
	once, _ := shelf.LoadOrStore(w.Name, sync.OnceValues(func() (string, error) {
		img, err := apps.Image(context.Background(), w.Name, oci.Uncompressed)
		if err != nil {
			return "", err
		}
		digest, err := img.Digest()
		if err != nil {
			return "", err
		}
		err = oci.Push(context.Background(), cluster.Lab.Registry()+"/e2e/"+w.Name+":latest", img)
		return lab.RegistryInCluster + "/e2e/" + w.Name + "@" + digest.String(), err
	}))
	reference, err := once.(func() (string, error))()
	require.NoError(t, err)
	return reference
}

// Template returns an edit that replaces the test application by the software.
func (w Software) Template(t *testing.T, volume corev1.VolumeSource) func(*corev1.PodTemplateSpec) {
	reference := w.reference(t)
	return func(p *corev1.PodTemplateSpec) {
		p.Spec.Volumes = nil
		c := corev1.Container{
			Name: "app", Image: reference, ImagePullPolicy: corev1.PullIfNotPresent,
			Resources: corev1.ResourceRequirements{Requests: app.Quantities("20m", "32Mi")},
		}
		if w.Port != 0 {
			c.Ports = []corev1.ContainerPort{{Name: "app", ContainerPort: w.Port}}
		}
		if w.Data != "" {
			p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: volume}}
			c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: w.Data}}
		}
		if w.Group != 0 {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &w.Group}
		}
		p.Spec.Containers = []corev1.Container{c}
		if w.Edit != nil {
			w.Edit(p)
		}
	}
}

// claimVolume makes a volume on the disk of one node, and the PersistentVolumeClaim that
// pods name.
func claimVolume(s *space.Space, w Software) corev1.VolumeSource {
	s.Helper()
	dir := filepath.Join(s.Dir, "data")
	require.NoError(s, os.MkdirAll(dir, 0o777))
	require.NoError(s, os.Chmod(dir, 0o777), "whatever the umask")
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes, none := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, ""
	volumes := s.Client.CoreV1().PersistentVolumes()
	_, err := volumes.Create(s.Context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: s.Namespace},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: modes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				Local: &corev1.LocalVolumeSource{Path: filepath.Join(s.Mount(), "data")},
			},
			ClaimRef: &corev1.ObjectReference{Namespace: s.Namespace, Name: w.Name},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: cluster.Lab.Nodes()[:1],
				}}}},
			}},
		},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	s.Cleanup(func() {
		assert.NoError(s, volumes.Delete(context.Background(), s.Namespace, metav1.DeleteOptions{}))
	})
	_, err = s.Client.CoreV1().PersistentVolumeClaims(s.Namespace).Create(s.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: w.Name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, StorageClassName: &none, VolumeName: s.Namespace,
			Resources: corev1.VolumeResourceRequirements{Requests: size},
		},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: w.Name}}
}

// kernel returns the listener that all tests share. The first call begins to listen to the
// kernel's reports of the applications that shims start.
var kernel = sync.OnceValues(func() (*witness.Families, error) {
	families, err := witness.ListenToFamilies()
	if err == nil {
		go families.Run(context.Background())
	}
	return families, err
})

// Families are the process families of all pods of a workload, dead pods included. A
// process family is a shim's child with all its descendants.
type Families struct {
	*space.Space
	heard *witness.Families
	app   string
	pods  map[string]string // names by UID
}

// NewFamilies returns the process families of a workload's pods. Once a call of [Families.All] has
// seen a pod, later calls return the pod's families even after the pod's end.
func NewFamilies(s *space.Space, app string) *Families {
	heard, err := kernel()
	require.NoError(s, err)
	return &Families{Space: s, heard: heard, app: app, pods: map[string]string{}}
}

// Include adds the commands that an executable file of the kubectl plugin runs under people's holds.
func (f *Families) Include(plugin string) { f.pods[plugin] = "" }

// All returns the families so far, in the order of their starts.
func (f *Families) All() []witness.Family {
	uids := []string{}
	for _, pod := range f.Space.Pods(f.app) {
		f.pods[string(pod.UID)] = pod.Name
	}
	for uid := range f.pods {
		uids = append(uids, uid)
	}
	all, err := f.heard.Of(uids...)
	require.NoError(f, err)
	return all
}

// Living returns the latest family that still lives, and its pod. Both are nil if no family
// lives. If the object of the family's pod is gone, only the pod is nil.
func (f *Families) Living() (*witness.Family, *corev1.Pod) {
	for _, family := range slices.Backward(f.All()) {
		if family.End == 0 {
			return &family, f.Pod(f.pods[family.Pod])
		}
	}
	return nil, nil
}

// NeverMoreThan fails the test if more families than permitted were alive at one instant.
func (f *Families) NeverMoreThan(permitted int) {
	f.Helper()
	all := f.All()
	for i, next := range all {
		beside := []witness.Family{next}
		for _, before := range all[:i] {
			if before.End == 0 || before.End > next.Start {
				beside = append(beside, before)
			}
		}
		require.LessOrEqual(f, len(beside), permitted, "at once: %v", beside)
	}
}

// Contains returns a function that reports whether a pod answers with a text over HTTP.
func Contains(path, text string) func(*space.Space, *corev1.Pod) bool {
	return func(s *space.Space, pod *corev1.Pod) bool {
		port := fmt.Sprint(pod.Spec.Containers[0].Ports[0].ContainerPort)
		ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second) // a new server may accept a connection and not answer yet
		defer cancel()
		body, err := s.Client.CoreV1().Pods(s.Namespace).ProxyGet("http", pod.Name, port, path, nil).DoRaw(ctx)
		return err == nil && strings.Contains(string(body), text)
	}
}
