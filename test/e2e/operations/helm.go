// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// releaseName is the name of the release in the tests.
const releaseName = "metaparticle"

// chart is the Helm chart with the images of the present installation.
type chart struct {
	t *testing.T
	// helm is the path of Helm's executable file. dir is the directory of the chart, and home is
	// the directory of Helm's caches.
	helm, dir, home string
	// values are arguments of Helm, with the registries that the webhook reads without TLS.
	values []string
}

// newChart compiles Helm and writes the chart.
func newChart(t *testing.T) chart {
	t.Helper()
	home := t.TempDir()
	c := chart{t: t, helm: filepath.Join(home, "helm"), dir: filepath.Join(home, "metaparticle"), home: home}
	build := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-o", c.helm, "helm.sh/helm/v3/cmd/helm")
	build.Dir, build.Env = "../helm", append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	arguments := []string{"run", "./tools/chart", "-out", home}
	container := webhook.Deployment(t).Spec.Template.Spec.Containers[0]
	images := map[string]string{"-webhook-digest": container.Image}
	for _, env := range container.Env {
		if env.Name == "AGENT_IMAGE" {
			images["-agent-digest"] = env.Value
		}
	}
	for flag, image := range images {
		repository, digest, _ := strings.Cut(image, "@")
		arguments = append(arguments, flag, digest)
		if flag == "-webhook-digest" {
			arguments = append(arguments, "-registry", strings.TrimSuffix(repository, "/webhook"))
		}
	}
	make := exec.CommandContext(context.Background(), "go", arguments...)
	make.Dir = "../.."
	out, err = make.CombinedOutput()
	require.NoError(t, err, string(out))
	var registries []string
	for _, arg := range container.Args {
		if registry, ok := strings.CutPrefix(arg, "--plain-http-registry="); ok {
			registries = append(registries, registry)
		}
	}
	c.values = []string{"--set", "registries.plainHTTP={" + strings.Join(registries, ",") + "}"}
	return c
}

// run runs Helm in the namespace of the release.
func (c chart) run(args ...string) (output string, err error) {
	c.t.Helper()
	args = append(args, "--namespace", webhook.Namespace, "--kubeconfig", cluster.Kubeconfig)
	cmd := exec.CommandContext(context.Background(), c.helm, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+c.home, "HELM_CONFIG_HOME="+c.home, "HELM_DATA_HOME="+c.home)
	out, err := cmd.CombinedOutput()
	c.t.Logf("helm %s\n%s", strings.Join(args, " "), out)
	return string(out), err
}

// must runs Helm and fails the test if Helm fails.
func (c chart) must(args ...string) string {
	c.t.Helper()
	out, err := c.run(args...)
	require.NoError(c.t, err, out)
	return out
}

// install installs the release with the chart's values, waits until the webhook is ready, and runs
// the tests of the release.
func (c chart) install(more ...string) {
	c.t.Helper()
	c.must(append(append([]string{"install", releaseName, c.dir, "--wait"}, c.values...), more...)...)
	c.tests()
}

// tests runs the tests of the release, and checks that no object of these tests is left.
func (c chart) tests() {
	c.t.Helper()
	out := c.must("test", releaseName)
	assert.Contains(c.t, out, "the webhook gated a pod, and a policy refused a pod with forged marks")
	for _, object := range leftBehind(c.t) {
		assert.NotContains(c.t, object, "metaparticle-test")
	}
}

// overTheInstallation takes over the objects that "make install" has applied. The cleanup of the test
// applies these objects again.
func overTheInstallation(t *testing.T) (chart, holder.Holder) {
	t.Helper()
	h := holder.Deploy(t, app.Lasting("charted"), "it uninstalls")
	c, again := newChart(t), installArguments(t)
	t.Cleanup(func() {
		_, _ = c.run("uninstall", releaseName, "--no-hooks", "--ignore-not-found")
		out, err := install(t, again...)
		require.NoError(t, err, out)
		webhook.AwaitGating(h.Space)
	})
	c.install("--take-ownership")
	return c, h
}

func TestHelmCommandsNeverStopARunningApplication(t *testing.T) {
	c, h := overTheInstallation(t)
	out, err := c.run(append([]string{"install", "second", c.dir}, c.values...)...)
	require.Error(t, err)
	assert.Contains(t, out, "SecondRelease: the cluster has the release metaparticle")

	c.changesAPolicyAndRollsBack()
	c.refusesUninstallWhileGatedPodsExist(h)

	// Without its hooks Helm deletes all objects of the release. This deletion must not stop the
	// application.
	c.must("uninstall", releaseName, "--no-hooks", "--wait")
	h.Never(lease.Handover, "another application", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	c.install()
	assert.Equal(t, h.Before.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID, "the application never stopped")
	app.HandsOver(h.Space, h.App)
	c.uninstallsAllButRecords(h.Space, h.App)
}

// changesAPolicyAndRollsBack upgrades to a chart that adds a CEL variable in front of a policy's
// other CEL variables. Helm patches the list of CEL variables, but must keep their order. The
// expression of a CEL variable may use only earlier CEL variables.
func (c chart) changesAPolicyAndRollsBack() {
	c.t.Helper()
	before := variables(c.t)
	file := filepath.Join(c.dir, "templates", "policies", "gate.yaml")
	text, err := os.ReadFile(file)
	require.NoError(c.t, err)
	changed := strings.Replace(string(text), "\n  variables:\n", "\n  variables:\n  - name: first\n    expression: 1 == 1\n", 1)
	require.NotEqual(c.t, string(text), changed)
	require.NoError(c.t, os.WriteFile(file, []byte(changed), 0o600))
	c.must(append([]string{"upgrade", releaseName, c.dir, "--wait", "--set", "replicas=3"}, c.values...)...)
	require.NoError(c.t, os.WriteFile(file, text, 0o600))
	assert.Equal(c.t, int32(3), webhook.Deployment(c.t).Status.ReadyReplicas)
	assert.Equal(c.t, append([]string{"first"}, before...), variables(c.t))
	c.tests()
	c.must("rollback", releaseName, "1", "--wait")
	assert.Equal(c.t, int32(2), *webhook.Deployment(c.t).Spec.Replicas)
	assert.Equal(c.t, before, variables(c.t))
}

// The test makes a new version of the product by tools/release, and pushes the chart of this version to
// the cluster's registry.
func TestHelmUpgradesToAReleaseAndRollsBack(t *testing.T) {
	c, h := overTheInstallation(t)
	const folder, version = "/metaparticle", "v0.0.1-e2e"
	pushed := cluster.Lab.Registry() + folder
	platform := "linux/" + runtime.GOARCH
	make := exec.CommandContext(context.Background(), "go", "run", "./tools/release", "-version", version, "-registry", lab.RegistryInCluster+folder,
		"-push-to", pushed, "-insecure", "-platforms", platform, "-plugins", platform, "-out", c.home)
	make.Dir = "../.."
	out, err := make.CombinedOutput()
	require.NoError(t, err, string(out))
	c.must(append([]string{"upgrade", releaseName, "oci://" + pushed + "/metaparticle", "--version", version[1:], "--plain-http", "--wait"}, c.values...)...)
	text, err := os.ReadFile(filepath.Join(c.home, version, "install.yaml"))
	require.NoError(t, err)
	assert.Contains(t, string(text), "image: "+webhook.Deployment(t).Spec.Template.Spec.Containers[0].Image+"\n", "the release names the very image")
	c.tests()
	c.must("rollback", releaseName, "1", "--wait")
	assert.Equal(t, h.Before.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID, "the application never stopped")
}

// variables returns the names of a policy's CEL variables, in the order of the policy.
func variables(t *testing.T) (names []string) {
	t.Helper()
	policy, err := cluster.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), "metaparticle-gate", metav1.GetOptions{})
	require.NoError(t, err)
	for _, variable := range policy.Spec.Variables {
		names = append(names, variable.Name)
	}
	require.NotEmpty(t, names)
	return names
}

// refusesUninstallWhileGatedPodsExist checks that "helm uninstall" fails while gated pods exist.
// Helm then leaves the release's record in the state "uninstalling". The function also checks the
// remedy, a rollback.
func (c chart) refusesUninstallWhileGatedPodsExist(h holder.Holder) {
	c.t.Helper()
	out, err := c.run("uninstall", releaseName)
	require.Error(c.t, err)
	assert.Contains(c.t, out, "gated pods exist")
	for _, pod := range h.Pods(h.App.Name) {
		assert.Contains(c.t, out, pod.Name, "it lists them")
	}
	configuration, err := h.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(c.t.Context(), webhook.Configuration, metav1.GetOptions{})
	require.NoError(c.t, err)
	assert.Len(c.t, configuration.Webhooks, 3, "nothing was taken away")
	for _, object := range leftBehind(c.t) {
		assert.NotRegexp(c.t, "^(ClusterRole|ClusterRoleBinding|ServiceAccount) .*uninstall", object)
	}
	upgrade := append([]string{"upgrade", releaseName, c.dir, "--wait"}, c.values...)
	out, err = c.run(upgrade...)
	require.Error(c.t, err)
	assert.Contains(c.t, out, "has no deployed releases")
	// The Job of the chart's pre-delete hook checks for gated pods, removes the webhooks from
	// the configuration, and checks again. If this Job dies before the second check, the
	// configuration stays without webhooks. The test makes this state without the Job.
	configuration.Webhooks = nil
	_, err = h.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Update(c.t.Context(), configuration, metav1.UpdateOptions{})
	require.NoError(c.t, err)
	c.must("rollback", releaseName, "3", "--wait")
	c.tests()
	c.must(upgrade...)
}

// uninstallsAllButRecords deletes the application's Deployment, and then uninstalls the release. A
// Lease with a done key, the Variables with their definition, and the namespace must stay.
func (c chart) uninstallsAllButRecords(s *space.Space, a app.App) {
	c.t.Helper()
	record := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Name: "once.recorded", Labels: map[string]string{api.ManagedLabel: "true"}, Annotations: map[string]string{api.DoneAnnotation: "7"},
	}}
	_, err := s.Client.CoordinationV1().Leases(s.Namespace).Create(c.t.Context(), record, metav1.CreateOptions{})
	require.NoError(c.t, err)
	kubectl.Must(s, `{"apiVersion":"metaparticle.io/v1alpha1","kind":"Variable","metadata":{"name":"hits"},"spec":{"integer":7}}`, "create", "-f", "-")
	kubectl.Must(s, "", "delete", "deployment", a.Name)
	s.Await(space.StartTimeout, "no gated pods", func() bool { return len(gatedPods(c.t)) == 0 })
	out := c.must("uninstall", releaseName, "--wait")
	assert.Regexp(c.t, "deleted [1-9][0-9]* Leases, Roles and bindings", out)
	stay := []string{
		"Lease " + s.Namespace + "/" + record.Name, "CustomResourceDefinition /variables.metaparticle.io", "Namespace /" + webhook.Namespace,
	}
	// An EndpointSlice has the labels of its Service. Helm does not wait until the garbage collector has
	// deleted the EndpointSlice.
	s.Within(space.Soon, func() bool { return len(leftBehind(c.t)) == len(stay) })
	assert.ElementsMatch(c.t, stay, leftBehind(c.t))
	assert.Equal(c.t, "7", kubectl.Must(s, "", "get", "variables.metaparticle.io", "hits", "-o", "jsonpath={.spec.integer}"))
	_, err = webhook.Try(s, app.Bare(s, "plain", nil))
	assert.NoError(c.t, err)
}
