// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package applications

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// SyncTree is the directory with the sources of the libraries metaparticle/sync; empty means none.
// No registry that a test machine can reach has these sources.
var SyncTree string

// example is an example program of metaparticle/sync, with unchanged source.
type example struct {
	name, image string
	// command is the program and its arguments; empty if the image's entrypoint is the program.
	command []string
	// lock is the lock that the source names.
	lock string
	// holds is the text that the program prints once it holds the lock.
	holds string
	// stays reports that the program never ends by itself.
	stays bool
	// relayed reports that the program calls port 8080, so its pod needs a relay to the local API.
	relayed bool
}

// The image "scripts" has the programs in Python and JavaScript. The image "java" has the programs
// in Java.
const scripts, java = "scripts", "java"

// inJava returns a command that compiles the sources in the pod, and then runs a class. The
// argument "class" is the name of the class, followed by the arguments of the program.
func inJava(class string) []string {
	return []string{"sh", "-c", "javac -cp '/usr/share/java/*' -d /tmp/classes $(find /java -name '*.java') && exec java -Xmx64m -cp '/tmp/classes:/usr/share/java/*' " + class}
}

// holdTimeout bounds the wait for a line in a program's output. A program holds for 45 s, and exits
// a minute after that. If the program has not released its Lease, the Lease expires 30 s later. If
// a program exits without a hold, the kubelet waits for up to 80 s before the next start.
const holdTimeout = 5 * time.Minute

// TestProgramsOfTheSyncLibraryNeverHoldTogether needs the sources of metaparticle/sync, and takes
// five minutes. So only "make e2e SYNC=directory" runs the test.
func TestProgramsOfTheSyncLibraryNeverHoldTogether(t *testing.T) {
	if SyncTree == "" {
		t.Skip("the sources of metaparticle/sync are not in this checkout: make e2e SYNC=directory RUN=TestProgramsOfTheSyncLibrary")
	}
	cluster.NeedLab(t, "it makes images")
	t.Parallel()
	references := pushExamples(t)
	for _, e := range []example{
		{name: "python-lock", image: scripts, command: []string{"python3", "-u", "/lock.py"}, lock: "test", holds: "I have the lock!"},
		{name: "python-election", image: scripts, command: []string{"python3", "-u", "/election.py"}, lock: "test", holds: "I am the master"},
		{name: "javascript-lock", image: scripts, command: []string{"node", "/lock.js"}, lock: "test", holds: "I have the lock!"},
		{name: "javascript-election", image: scripts, command: []string{"node", "/elector.js"}, lock: "test", holds: "I am the master", stays: true},
		{name: "go-lock", image: "lock", lock: "just-a-lock", holds: "Got the lock!", relayed: true},
		{name: "go-election", image: "election", lock: "election-lock", holds: "LEADER!", relayed: true},
		{name: "java-lock", image: java, command: inJava("io.metaparticle.containerlib.elector.examples.Main"), lock: "test", holds: "Sleeping."},
		{name: "java-election", image: java, command: inJava("io.metaparticle.sync.examples.ElectionMain http://localhost:13131"),
			lock: "test", holds: "I am the master.", stays: true},
	} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			e.test(t, references)
		})
	}
}

// test starts a second program while the first one holds. The second one must hold only after the
// first one has ended.
func (e example) test(t *testing.T, references map[string]string) {
	s := space.New(t)
	e.start(s, references, "first", corev1.RestartPolicyNever)
	awaitLine(s, "first", e.holds)
	assert.Equal(t, "first", s.AwaitHolder(api.LockLease(e.lock)).Name)
	// Some programs give up after one attempt, so the kubelet starts them again.
	e.start(s, references, "second", corev1.RestartPolicyAlways)
	s.Await(space.StartTimeout, "the second program runs", func() bool { return container(s, "second").State.Running != nil })
	began := container(s, "second").State.Running.StartedAt
	ended := e.end(s)
	assert.True(t, began.Time.Before(ended), "the second program bids while the first one holds")
	held := awaitLine(s, "second", e.holds)
	t.Logf("the first program ended at %s, and the second one held at %s", ended, held)
	assert.False(t, held.Before(ended), "%s is before %s", held, ended)
	s.Await(space.Soon, "the Lease names the second pod", func() bool {
		holder := s.Holder(api.LockLease(e.lock))
		return holder != nil && holder.Name == "second"
	})
}

// start creates a pod of the program.
func (e example) start(s *space.Space, references map[string]string, name string, restart corev1.RestartPolicy) {
	s.Helper()
	pod := app.Bare(s, name, app.Claim(api.LocalAnnotation, "lock/"+e.lock))
	pod.Annotations[api.LeaseDurationAnnotation] = api.DefaultLeaseDuration.String()
	pod.Spec.Volumes, pod.Spec.RestartPolicy, pod.Spec.TerminationGracePeriodSeconds = nil, restart, new(int64(1))
	pod.Spec.Containers = []corev1.Container{{
		Name: "app", Image: references[e.image], Command: e.command, ImagePullPolicy: corev1.PullIfNotPresent,
		Resources: corev1.ResourceRequirements{Requests: app.Quantities("20m", "32Mi")},
	}}
	if e.relayed {
		pod.Spec.InitContainers = []corev1.Container{{
			Name: "relay", Image: references[scripts], ImagePullPolicy: corev1.PullIfNotPresent, RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
			Command: []string{"socat", "TCP-LISTEN:8080,bind=127.0.0.1,fork,reuseaddr", "TCP:127.0.0.1:13131"},
		}}
	}
	_, err := s.Client.CoreV1().Pods(s.Namespace).Create(s.Context(), pod, metav1.CreateOptions{})
	require.NoError(s, err)
}

// end waits until the first program has ended, and returns the instant of its end. If the program
// never ends by itself, end deletes its pod, and returns the instant before this deletion.
func (e example) end(s *space.Space) time.Time {
	s.Helper()
	if e.stays {
		at := time.Now()
		app.DeletePod(s, s.Pod("first"))
		s.Await(space.StartTimeout, "the first program is gone", func() bool { return s.Pod("first") == nil })
		return at
	}
	s.Await(holdTimeout, "the first program ends", func() bool { return container(s, "first").State.Terminated != nil })
	end := container(s, "first").State.Terminated
	assert.Zero(s, end.ExitCode)
	return end.FinishedAt.Time
}

// container returns the status of the container "app" in a pod. If the pod does not exist, the
// status is empty.
func container(s *space.Space, name string) corev1.ContainerStatus {
	pod := s.Pod(name)
	if pod == nil {
		return corev1.ContainerStatus{}
	}
	return status.Container(pod.Status, "app")
}

// awaitLine waits until the program of a pod has printed the text, and returns that instant.
func awaitLine(s *space.Space, pod, text string) time.Time {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), holdTimeout)
	defer cancel()
	for {
		log, err := s.Client.CoreV1().Pods(s.Namespace).GetLogs(pod, &corev1.PodLogOptions{Container: "app", Follow: true, Timestamps: true}).Stream(ctx)
		if err == nil {
			for lines := bufio.NewScanner(log); lines.Scan(); {
				if at, line, _ := strings.Cut(lines.Text(), " "); strings.Contains(line, text) {
					log.Close()
					instant, err := time.Parse(time.RFC3339Nano, at)
					require.NoError(s, err)
					return instant
				}
			}
			log.Close()
		}
		select { // the container does not run yet, or the kubelet starts it again
		case <-ctx.Done():
			require.FailNow(s, "not within "+holdTimeout.String(), "%s prints %q: %v", pod, text, err)
		case <-time.After(time.Second):
		}
	}
}

// pushExamples builds images of the example programs from unchanged sources, and returns their
// references.
func pushExamples(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	files, module, sources := filepath.Join(dir, "files"), filepath.Join(dir, "module"), filepath.Join(dir, "sources")
	libraries := filepath.Join(files, "node_modules/@metaparticle/sync")
	for from, to := range map[string]string{
		"python/examples": files, "javascript/examples": files, "javascript/lib": libraries,
		"python/metaparticle_sync": filepath.Join(files, "usr/lib/python3/dist-packages/metaparticle_sync"),
		"go/sync":                  filepath.Join(module, "go/sync"),
		"go/examples":              filepath.Join(module, "go/examples"),
		"java/src/main/java":       filepath.Join(sources, "java"),
	} {
		require.NoError(t, os.CopyFS(to, os.DirFS(filepath.Join(SyncTree, from))))
	}
	command(t, libraries, "npm", "install", "--omit=dev", "--ignore-scripts", "--no-bin-links", "--no-package-lock", "--no-audit", "--no-fund")
	// The sources are older than Go modules, and have no file go.mod.
	require.NoError(t, os.WriteFile(filepath.Join(module, "go.mod"), []byte("module github.com/metaparticle-io/sync\n\ngo 1.21\n"), 0o600))
	found := map[string]string{}
	for _, name := range []string{"lock", "election"} {
		command(t, module, "go", "build", "-mod=mod", "-o", name, "./go/examples/"+name)
		image, err := oci.Static(filepath.Join(module, name), name, oci.Config{}, oci.Uncompressed)
		require.NoError(t, err)
		found[name] = pushed(t, name, image)
	}
	for name, made := range map[string]struct {
		packages []string
		files    string
	}{
		scripts: {[]string{"nodejs", "python3", "python3-six", "socat"}, files},
		java:    {[]string{"libunirest-java-java", "openjdk-17-jdk-headless"}, sources},
	} {
		image, err := oci.Debian(t.Context(), made.packages, oci.Config{Files: os.DirFS(made.files)}, oci.Uncompressed)
		require.NoError(t, err)
		found[name] = pushed(t, name, image)
	}
	return found
}

// command runs a command in a directory.
func command(t *testing.T, dir string, words ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), words[0], words[1:]...)
	c.Dir, c.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s: %s", words, out)
}

// pushed pushes an image to the cluster's registry, and returns its reference there.
func pushed(t *testing.T, name string, image v1.Image) string {
	t.Helper()
	digest, err := image.Digest()
	require.NoError(t, err)
	require.NoError(t, oci.Push(t.Context(), cluster.Lab.Registry()+"/e2e/sync-"+name+":latest", image))
	return lab.RegistryInCluster + "/e2e/sync-" + name + "@" + digest.String()
}
