// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// as returns the plugin with the rights of an account that has only the ClusterRole, in the namespace of
// the test.
func (p plugin) as(role string) plugin {
	p.Helper()
	kubectl.Must(p.Space, "", "create", "rolebinding", role, "--clusterrole="+role, "--serviceaccount="+p.Namespace+":"+role)
	return p.by(role)
}

// by returns the plugin with the rights of a new account of that name.
func (p plugin) by(account string) plugin {
	p.Helper()
	kubectl.Must(p.Space, "", "create", "serviceaccount", account)
	token, err := p.Client.CoreV1().ServiceAccounts(p.Namespace).CreateToken(p.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(p, err)
	config, err := clientcmd.LoadFromFile(cluster.Kubeconfig)
	require.NoError(p, err)
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	}
	p.kubeconfig = filepath.Join(p.TempDir(), account)
	require.NoError(p, clientcmd.WriteToFile(*config, p.kubeconfig))
	return p
}

// The ClusterRoles of Kubernetes are what most people have in a namespace. Only a real API server
// aggregates ClusterRoles.
func TestViewShowsSlotsAndEditMovesThem(t *testing.T) {
	t.Parallel()
	s, a := space.New(t), app.Lasting("clerk")
	a.Replicas = 2
	app.Deploy(s, a)
	p, slot := newPlugin(s), lease.OfDeployment(a.Name)
	first := s.AwaitHolder(slot)
	app.AwaitRunning(s, a, space.Soon)
	app.AwaitStandby(s, a)
	viewer, editor := p.as("view"), p.as("edit")
	shown := viewer.run(0, "status", "-v")
	assert.Contains(t, shown, slot+": singleton, held by "+first.Name)
	assert.NotContains(t, shown, "note: ")
	assert.Contains(t, viewer.run(0, "explain", slot), "gated, 2 pods")
	assert.Contains(t, viewer.run(2, "check"), " unknown\n")
	assert.Contains(t, viewer.run(2, "yield", slot), "forbidden")
	assert.Contains(t, editor.run(0, "pause", slot), "paused; "+first.Name+" holds, and goes on")
	editor.run(0, "resume", slot)
	assert.Contains(t, editor.run(0, "yield", slot), " holds, ")
}
