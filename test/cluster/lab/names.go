// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/daemon"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

// Users of a cluster need these names, which package state explains.
const (
	KubernetesVersion = state.KubernetesVersion
	ControlPlane      = state.ControlPlane
	SharedMount       = state.SharedMount
	RegistryInCluster = state.RegistryInCluster
	PrivateRegistry   = state.PrivateRegistry
	PrivateUser       = state.PrivateUser
	PrivatePassword   = state.PrivatePassword
)

// ErrDown is the error of a call that needs a running cluster, if the cluster is down.
var ErrDown = state.ErrDown

// Components returns the names that Kill and Start accept for a node.
func Components(node string) []string { return daemon.Components(node) }
