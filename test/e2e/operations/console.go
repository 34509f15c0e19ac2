// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// consoleName is the name of the console's objects.
const consoleName = "metaparticle-console"

// installConsole applies the objects of the console, and deletes them when the test ends.
func installConsole(s *space.Space) {
	s.Helper()
	out, err := install(s.T, append(installArguments(s.T), "-render", "-component", "console")...)
	require.NoError(s, err, out)
	var documents []string
	for document := range strings.SplitSeq("\n"+out, "\n---\n") {
		var object struct{ Metadata struct{ Name string } }
		require.NoError(s, yaml.Unmarshal([]byte(document), &object), document)
		if object.Metadata.Name == consoleName {
			documents = append(documents, document)
		}
	}
	require.Len(s, documents, 5, "account, ClusterRole, its binding, Deployment, NetworkPolicy")
	objects := strings.Join(documents, "\n---\n")
	apply := func(ctx context.Context, args ...string) {
		cmd := kubectl.Command(ctx, webhook.Namespace, append(args, "-f", "-")...)
		cmd.Stdin = strings.NewReader(objects)
		out, err := cmd.CombinedOutput()
		assert.NoError(s, err, string(out))
	}
	apply(s.Context(), "apply", "--server-side")
	s.Cleanup(func() { apply(context.Background(), "delete", "--wait=false", "--ignore-not-found") })
}

// tab is a process of the plugin's command "console". Through this process the test reads
// the console, as a browser does.
type tab struct {
	plugin

	process *exec.Cmd
	printed *bufio.Scanner
	url     string
}

// openConsole starts the plugin's command "console" as a process. The process prints the console's
// address, which openConsole reads.
func openConsole(p plugin) *tab {
	p.Helper()
	c := &tab{plugin: p, process: exec.CommandContext(p.Context(), p.binary, "console", "--kubeconfig", cluster.Kubeconfig)}
	out, err := c.process.StdoutPipe()
	require.NoError(p, err)
	c.process.Stderr = os.Stderr
	require.NoError(p, c.process.Start())
	c.printed = bufio.NewScanner(out)
	c.url = c.next()
	return c
}

// next returns the next line that the command prints.
func (c *tab) next() string {
	c.Helper()
	require.True(c, c.printed.Scan(), "the command printed no address")
	return c.printed.Text()
}

// row is one slot, as a message of the console's stream shows the slot.
type row struct {
	Namespace, Slot string
	Holder          *struct{ Pod string }
	Handovers       []struct{ Pod, From, Reason, Cause string }
}

// get sends a request to the console, and returns the status and the body of the answer.
func (c *tab) get(path, host string) (int, io.Reader) {
	c.Helper()
	request, err := http.NewRequestWithContext(c.Context(), http.MethodGet, c.url+path, nil)
	require.NoError(c, err)
	request.Host = host
	response, err := http.DefaultClient.Do(request)
	require.NoError(c, err)
	c.Cleanup(func() { response.Body.Close() })
	return response.StatusCode, response.Body
}

// watch returns a function that reads the console's stream. The function reads until the given slot
// of the test's namespace satisfies the function "wanted".
func (c *tab) watch() func(slot string, wanted func(row) bool) row {
	c.Helper()
	status, body := c.get("events", "")
	require.Equal(c, http.StatusOK, status)
	lines := bufio.NewReader(body)
	return func(slot string, wanted func(row) bool) row {
		c.Helper()
		for {
			line, err := lines.ReadString('\n')
			require.NoError(c, err)
			data, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				continue
			}
			var message struct{ Slots []row }
			require.NoError(c, json.Unmarshal([]byte(data), &message))
			for _, r := range message.Slots {
				if r.Namespace == c.Namespace && r.Slot == slot && wanted(r) {
					return r
				}
			}
		}
	}
}

func TestConsoleShowsTheCauseOfAHandover(t *testing.T) {
	t.Parallel()
	s, a := space.New(t), app.Lasting("watched")
	a.Replicas = 2
	p, slot := newPlugin(s), lease.OfDeployment(a.Name)
	assert.Contains(t, p.run(3, "console"), "no console is installed: run helm upgrade")
	installConsole(s)
	app.Deploy(s, a)
	first := s.AwaitHolder(slot)
	app.AwaitStandby(s, a)

	c := openConsole(p)
	status, _ := c.get("", "metaparticle.example")
	assert.Equal(t, http.StatusMisdirectedRequest, status)
	shown := c.watch()
	shown(slot, func(r row) bool { return r.Holder != nil && r.Holder.Pod == first.Name })
	p.run(0, "yield", "deployment/watched")
	// On a busy cluster the Event of the release, which has the cause, comes after the Event of the acquisition.
	seen := shown(slot, func(r row) bool {
		return r.Holder != nil && r.Holder.Pod != first.Name && len(r.Handovers) > 1 && r.Handovers[0].Reason != ""
	})
	assert.Equal(t, first.Name, seen.Handovers[0].From)
	assert.Equal(t, "Yielded", seen.Handovers[0].Reason)

	// The deletion of the holder is the commonest cause of a handover.
	app.AwaitStandby(s, a)
	deleted := seen.Holder.Pod
	kubectl.Must(s, "", "delete", "pod", deleted, "--wait=false")
	seen = shown(slot, func(r row) bool {
		return r.Holder != nil && r.Holder.Pod != deleted && r.Handovers[0].From == deleted && r.Handovers[0].Reason != ""
	})
	assert.Contains(t, seen.Handovers[0].Cause, "this pod is being deleted")

	for _, args := range [][]string{
		{"annotate", "lease", slot, "a=b"}, {"delete", "lease", slot}, {"delete", "pod", first.Name}, {"get", "secrets"}, {"create", "configmap", "a"},
	} {
		out, err := kubectl.Run(s, "", append(args, "--as=system:serviceaccount:"+webhook.Namespace+":"+consoleName)...)
		assert.Error(t, err, args)
		assert.Contains(t, out, "forbidden", args)
	}

	// The command keeps its address when another pod replaces the console's pod.
	kubectl.Must(s, "", "-n", webhook.Namespace, "delete", "pod", "-l", "app.kubernetes.io/name="+consoleName)
	assert.Equal(t, c.url, c.next())
	c.watch()(slot, func(r row) bool { return r.Holder != nil && r.Holder.Pod == seen.Holder.Pod })
	require.NoError(t, c.process.Process.Signal(os.Interrupt))
	assert.NoError(t, c.process.Wait())
}
