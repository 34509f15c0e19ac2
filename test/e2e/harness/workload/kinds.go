// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"slices"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// Kind is a kind of workload with its strategy and its replicas.
type Kind struct {
	// Name contains the kind, the replicas and the strategy, as in deployment-3-recreate.
	Name string
	// Resource is the kind's name for kubectl. Lease is the kind's name for [api.SingletonLease],
	// such as Deployment.
	Resource, Lease string
	Replicas        int32
	// Stops is the greatest number of times that the rollout of a working version stops the
	// application.
	Stops int
	// Protected reports that the rollout of a broken version stalls, and the old version
	// continues to serve.
	Protected bool
	object    func(s *space.Space, a app.App) any
}

// Kinds returns all kinds of the table in docs/evidence/rollouts.md.
func Kinds() []Kind {
	all := []Kind{
		deployment(1, "", true, func(*appsv1.DeploymentSpec) {}),
		deployment(2, "", true, func(*appsv1.DeploymentSpec) {}),
		deployment(3, "", true, func(*appsv1.DeploymentSpec) {}),
		deployment(5, "", true, func(*appsv1.DeploymentSpec) {}),
		deployment(3, "-no-surge", true, withoutSurge),
		deployment(1, "-no-surge", false, withoutSurge),
		deployment(3, "-recreate", false, func(d *appsv1.DeploymentSpec) {
			d.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		}),
		statefulSet(3, "", appsv1.OrderedReadyPodManagement),
		statefulSet(3, "-parallel", appsv1.ParallelPodManagement),
		statefulSet(1, "", appsv1.OrderedReadyPodManagement),
	}
	return append(all, Kind{
		Name: "daemonset", Resource: "daemonset", Lease: "DaemonSet", Replicas: 3, Stops: 2, Protected: true,
		object: func(s *space.Space, a app.App) any {
			return &appsv1.DaemonSet{
				TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"}, ObjectMeta: app.Meta(s, a),
				Spec: appsv1.DaemonSetSpec{Selector: a.Selector(), Template: app.Template(s, a)},
			}
		},
	})
}

// Named returns the kind of the given name, with the given number of replicas.
func Named(s *space.Space, name string, replicas int32) Kind {
	s.Helper()
	all := Kinds()
	i := slices.IndexFunc(all, func(k Kind) bool { return k.Name == name })
	require.GreaterOrEqual(s, i, 0, "no such kind: %s", name)
	all[i].Replicas = replicas
	return all[i]
}

func deployment(replicas int32, strategy string, protected bool, change func(*appsv1.DeploymentSpec)) Kind {
	return Kind{
		Name: fmt.Sprintf("deployment-%d%s", replicas, strategy), Resource: "deployment", Lease: "Deployment",
		Replicas: replicas, Stops: 1, Protected: protected,
		object: func(s *space.Space, a app.App) any {
			d := app.Deployment(s, a)
			change(&d.Spec)
			return d
		},
	}
}

// withoutSurge makes the Deployment's controller delete an old pod before it makes a new one.
func withoutSurge(d *appsv1.DeploymentSpec) {
	none, one := intstr.FromInt32(0), intstr.FromInt32(1)
	d.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &none, MaxUnavailable: &one}
}

func statefulSet(replicas int32, management string, policy appsv1.PodManagementPolicyType) Kind {
	stops := 2
	if replicas == 1 {
		stops = 1
	}
	return Kind{
		Name: fmt.Sprintf("statefulset-%d%s", replicas, management), Resource: "statefulset", Lease: "StatefulSet",
		Replicas: replicas, Stops: stops, Protected: replicas > 1,
		object: func(s *space.Space, a app.App) any {
			set := app.StatefulSet(s, a)
			set.Spec.PodManagementPolicy = policy
			// By default the standbys of a StatefulSet forward nothing, because its
			// Service is usually headless.
			set.Annotations[api.ReadinessAnnotation] = string(api.ReadinessForward)
			return set
		},
	}
}
