// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// errAbsent means that nothing of Metaparticle is installed, so no further check can say more.
var errAbsent = errors.New("absent")

// check has a function that examines one part of a cluster, and the name that its finding gets.
type check struct {
	name  string
	judge func(Cluster, context.Context) (Finding, error)
}

// Before runs the checks that a person needs before an installation, and returns the findings about
// the cluster.
func Before(ctx context.Context, c Cluster) []Finding {
	return run(ctx, c, []check{
		{"API server", Cluster.apiServer}, {"nodes", Cluster.nodes}, {"clocks", Cluster.clocks},
		{"cert-manager", Cluster.certManager}, {"rights", Cluster.rights}, {"renewals", Cluster.renewals}, {"installation", Cluster.absent},
	})
}

// After runs the checks of an existing installation, and returns the findings. The checks are in
// the order in which a person repairs the faults.
func After(ctx context.Context, c Cluster) []Finding {
	return run(ctx, c, []check{
		{"API server", Cluster.apiServer}, {"nodes", Cluster.nodes}, {"clocks", Cluster.clocks},
		{"webhook", Cluster.webhook}, {"version", Cluster.version}, {"replicas", Cluster.replicas}, {"certificate", Cluster.certificate}, {"configuration", Cluster.configuration},
		{"policies", Cluster.policies}, {"Variables", Cluster.variables}, {"enroll", Cluster.enroll}, {"slots", Cluster.slots}, {"tokens", Cluster.tokens},
		{"pauses", Cluster.pauses}, {"renewals", Cluster.renewals}, {"priority", Cluster.priority},
		{"opt-in", Cluster.labels}, {"admission", Cluster.admission}, {"registry", Cluster.registry}, {"pods", Cluster.pods}, {"claims", Cluster.claims}, {"Services", Cluster.services},
	})
}

func run(ctx context.Context, c Cluster, checks []check) []Finding {
	var all []Finding
	for _, one := range checks {
		f, err := one.judge(c, ctx)
		if errors.Is(err, errAbsent) {
			f.Check = one.name
			return append(all, f)
		}
		if err != nil {
			f = Finding{Result: Unknown, Says: err.Error()}
			if apierrors.IsForbidden(err) {
				f.Do = "ask for the right to read this, or let an administrator run the check"
			}
		}
		if f.Result == "" {
			continue // the check does not apply
		}
		f.Check = one.name
		all = append(all, f)
	}
	return all
}
