// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// addressKeys are the annotations by which a pod asks its network for an address of its own, which it then
// has as long as it exists. Kube-OVN has such a pair of keys for each further network. The MAC addresses of
// Calico and Cilium are missing: nobody sees them outside of the pod.
var (
	addressKeys = []string{
		"cni.projectcalico.org/ipAddrs", "cni.projectcalico.org/ipAddrsNoIpam", "cni.projectcalico.org/floatingIPs",
		"ipam.antrea.io/pod-ips",
	}
	kubeOVN = []string{".kubernetes.io/ip_address", ".kubernetes.io/mac_address"}
)

// networkKeys are the annotations of Multus with a list of networks. In its short form, the list has no
// addresses.
var networkKeys = []string{"k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network"}

// addressed warns of pods that have one address. A standby has it, too, although it waits.
func (w *workload) addressed(kind string, request api.Request) (warnings reason.Refusals) {
	if !hasStandbys(request) || !w.Spec.meet(kind) {
		return nil
	}
	annotations := w.Spec.Template.Annotations
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if address := addressIn(key, annotations[key]); address != "" {
			warnings.Add(reason.AddressShared, "all pods of the template ask for %s, by %s", address, key)
		}
	}
	return warnings
}

// meet reports whether two pods of the workload can exist at once, as replicas or in a rollout. Pods of a
// Job do not count: they wait for each other anyway.
func (r rollout) meet(kind string) bool {
	surge, err := scaled(r.Strategy.RollingUpdate.MaxSurge, r.count(), true, intstr.FromString("25%"))
	return r.several(kind) || api.BuiltinOwner(kind).Surges && r.count() == 1 && r.Strategy.Type != recreate && err == nil && surge > 0
}

// several reports whether the workload keeps more than one pod.
func (r rollout) several(kind string) bool {
	of := api.BuiltinOwner(kind)
	return of.PerNode || of.Replicas && r.count() > 1
}

// addressIn returns the first fixed address of an annotation; empty for none.
func addressIn(key, value string) string {
	switch {
	case slices.Contains(networkKeys, key):
		return addressOfNetworks(value)
	case slices.Contains(addressKeys, key),
		slices.ContainsFunc(kubeOVN, func(suffix string) bool { return strings.HasSuffix(key, suffix) }):
		return first(value)
	}
	return ""
}

// addressOfNetworks returns the first address in a list of networks in its JSON form. Some write a text
// where Multus has a list.
func addressOfNetworks(value string) string {
	var networks []map[string]any
	if json.Unmarshal([]byte(value), &networks) != nil {
		return ""
	}
	for _, network := range networks {
		for _, field := range []string{"ips", "mac", "infiniband-guid"} {
			text, err := json.Marshal(network[field])
			if address := first(string(text)); err == nil && network[field] != nil && address != "" {
				return address
			}
		}
	}
	return ""
}

// first returns the first address of a text or of a JSON list.
func first(value string) string {
	words := strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune("[]\", \t\n", r) })
	if len(words) == 0 {
		return ""
	}
	return words[0]
}
