// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"cmp"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// said returns what the webhook says for one reason of a workload.
func said(t *testing.T, kind string, of reason.Reason, workload string) string {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(workload))
	require.NoError(t, err)
	_, warnings, err := Carry(t.Context(), Workload{Kind: kind, Raw: raw, Kubernetes: 37})
	require.NoError(t, err)
	said := ""
	for _, w := range warnings {
		if w.Reason == of {
			said += w.Error()
		}
	}
	return said
}

func TestPreferenceByALabelThatDistinguishesNoPods(t *testing.T) {
	const nowhere, everywhere = "neither the template nor Kubernetes gives a pod", "have the same label"
	for _, test := range []struct{ kind, key, want string }{
		{"StatefulSet", "apps.kubernetes.io/pod-index", ""},
		{"StatefulSet", "statefulset.kubernetes.io/pod-name", ""},
		{"StatefulSet", "controller-revision-hash", everywhere},
		{"StatefulSet", "pod-template-hash", everywhere},
		{"Deployment", "apps.kubernetes.io/pod-index", nowhere},
		{"Deployment", "statefulset.kubernetes.io/pod-name", nowhere},
		{"Deployment", "pod-template-hash", everywhere},
		{"Deployment", "tier", everywhere},
		{"Deployment", "batch.kubernetes.io/job-completion-index", nowhere},
		{"Deployment", "topology.kubernetes.io/zone", ""},
		{"DaemonSet", "topology.kubernetes.io/region", ""},
		{"DaemonSet", "topology.ebs.csi.aws.com/zone", nowhere},
		{"DaemonSet", "failure-domain.beta.kubernetes.io/zone", nowhere},
		{"Deployment", "eks.amazonaws.com/nodegroup", nowhere},
		{"Deployment", "cloud.google.com/gke-nodepool", nowhere},
		{"Deployment", "kubernetes.io/arch", nowhere},
		{"Deployment", "kubernetes.io/hostname", nowhere},
		{"Deployment", "node-role.kubernetes.io/worker", nowhere},
		{"Job", "kubernetes.io/hostname", ""}, // refused: NoHandover
	} {
		said := said(t, test.kind, reason.NobodyPreferred, fmt.Sprintf(`
metadata: {name: d, annotations: {metaparticle.io/singleton: "true", metaparticle.io/prefer: %s=a}}
spec:
  replicas: 2
  template:
    metadata: {labels: {tier: a}}
    spec: {restartPolicy: %s, containers: [{name: app, image: "a:1", command: [app]}]}
`, test.key, map[bool]string{true: "Never", false: "Always"}[test.kind == "Job"]))
		assert.Equal(t, test.want != "", said != "", "%s, %s: %s", test.kind, test.key, said)
		assert.Contains(t, said, test.want, test.key)
	}
}

func TestFixedAddressOfPodsThatExistAtOnce(t *testing.T) {
	const multus, calico = "k8s.v1.cni.cncf.io/networks: ", "cni.projectcalico.org/"
	for name, test := range map[string]struct{ kind, claim, replicas, strategy, annotation, want string }{
		"addresses and MAC":           {annotation: multus + `'[{"name": "lan", "ips": ["192.0.2.53/24"], "mac": "02:00:5e:10:00:35"}]'`, want: "192.0.2.53/24"},
		"a MAC alone":                 {annotation: multus + `'[{"name": "a"}, {"name": "lan", "mac": "02:00:5e:10:00:35"}]'`, want: "02:00:5e:10:00:35"},
		"a text instead of a list":    {annotation: multus + `'[{"name": "lan", "ips": "192.0.2.53/24"}]'`, want: "192.0.2.53/24"},
		"the default network":         {annotation: `v1.multus-cni.io/default-network: '[{"name": "lan", "ips": ["192.0.2.53/24"]}]'`, want: "192.0.2.53/24"},
		"InfiniBand":                  {annotation: multus + `'[{"name": "ib", "infiniband-guid": "c2:11:22:33:44:55:66:77"}]'`, want: "c2:11"},
		"networks without addresses":  {annotation: multus + `'[{"name": "lan", "interface": "net1", "ips": []}]'`},
		"networks in the short form":  {annotation: multus + "shop/lan@net1"},
		"networks that do not parse":  {annotation: multus + `'[{"name": "lan", "ips": ["192.0.2.53/24"]'`},
		"Calico":                      {annotation: calico + `ipAddrs: '["192.0.2.53"]'`, want: "192.0.2.53"},
		"Calico without IPAM":         {annotation: calico + `ipAddrsNoIpam: '["192.0.2.53"]'`, want: "192.0.2.53"},
		"Calico's floating addresses": {annotation: calico + `floatingIPs: '["192.0.2.53"]'`, want: "192.0.2.53"},
		"Calico's MAC, inside alone":  {annotation: calico + "hwAddr: '02:00:5e:10:00:35'"},
		"a pool":                      {annotation: calico + `ipv4pools: '["pool"]'`},
		"Kube-OVN":                    {annotation: "ovn.kubernetes.io/ip_address: 192.0.2.53", want: "192.0.2.53"},
		"Kube-OVN, a further network": {annotation: "lan.shop.kubernetes.io/mac_address: '02:00:5e:10:00:35'", want: "02:00:5e:10:00:35"},
		"a pool of Kube-OVN":          {annotation: "ovn.kubernetes.io/ip_pool: '192.0.2.53,192.0.2.54'"},
		"Antrea":                      {annotation: "ipam.antrea.io/pod-ips: 192.0.2.53", want: "192.0.2.53"},
		"one replica that surges":     {replicas: "1", want: "192.0.2.53"},
		"one replica, no surge":       {replicas: "1", strategy: "strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}"},
		"one replica, Recreate":       {replicas: "1", strategy: "strategy: {type: Recreate}"},
		"two replicas, Recreate":      {strategy: "strategy: {type: Recreate}", want: "192.0.2.53"},
		"a StatefulSet":               {kind: "StatefulSet", want: "192.0.2.53"},
		"a StatefulSet of one":        {kind: "StatefulSet", replicas: "1"},
		"a DaemonSet":                 {kind: "DaemonSet", replicas: "0", want: "192.0.2.53"},
		"a Job":                       {kind: "Job"},
		"only a start lock":           {claim: "metaparticle.io/start-lock: warm"},
	} {
		said := said(t, cmp.Or(test.kind, "Deployment"), reason.AddressShared, fmt.Sprintf(`
metadata: {name: d, annotations: {%s}}
spec:
  replicas: %s
  %s
  template:
    metadata:
      annotations:
        %s
    spec: {containers: [{name: app, image: "a:1", command: [app]}]}
`, cmp.Or(test.claim, `metaparticle.io/singleton: "true"`), cmp.Or(test.replicas, "2"), test.strategy, cmp.Or(test.annotation, "ovn.kubernetes.io/ip_address: 192.0.2.53")))
		assert.Equal(t, test.want != "", said != "", "%s: %s", name, said)
		assert.Contains(t, said, test.want, name)
	}
}
