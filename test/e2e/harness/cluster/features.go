// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"

	"github.com/metaparticle-io/metaparticle/mutate/feature"
)

// These are the features of Kubernetes that some tests need, by the names of their feature gates.
const (
	RestartAllContainers    = "RestartAllContainersOnContainerExits"
	ContainerRestartRules   = "ContainerRestartRules"
	MutatingAdmissionPolicy = "MutatingAdmissionPolicy"
	PodTopologyLabels       = "PodTopologyLabelsAdmission"
)

// since has the first minor version of Kubernetes 1 in which each feature is on by default.
var since = map[string]int{
	RestartAllContainers:    feature.RestartsAll,
	ContainerRestartRules:   35,
	PodTopologyLabels:       35,
	MutatingAdmissionPolicy: 36,
}

// Has reports whether the cluster's version has a feature by default.
func Has(name string) bool {
	first, known := since[name]
	if !known {
		panic("no test needs the feature " + name)
	}
	return Minor >= first
}

// NeedFeature skips a test on a cluster whose version lacks a feature, and names the feature.
func NeedFeature(t *testing.T, name string) {
	t.Helper()
	if !Has(name) {
		t.Skipf("Kubernetes 1.%d lacks the feature %s, which is on by default from 1.%d", Minor, name, since[name])
	}
}

// readMinor reads the minor version of the cluster's API server.
func readMinor() error {
	info, err := Client.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("read the version of Kubernetes: %w", err)
	}
	Minor, err = feature.MinorVersion(info)
	return err
}
