// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package check judges an installation, and a cluster before an installation. Each check reads
// objects or sends a dry run, and changes nothing. The outcome of a check is a [Finding], which
// says what to do. If a person may not read the objects of a check, the [Result] is "unknown".
//
// The checks compare times with the API server's own clock, and never with the clock of the
// person's computer.
package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
		{"opt-in", Cluster.labels}, {"admission", Cluster.admission}, {"registry", Cluster.registry}, {"pods", Cluster.pods}, {"agents", Cluster.trouble}, {"claims", Cluster.claims}, {"owners", Cluster.owners}, {"Services", Cluster.services},
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
			if f.Forbidden = apierrors.IsForbidden(err); f.Forbidden {
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

// Result is the grade of a finding: ok, warning, failed or unknown.
type Result string

const (
	// OK means that nothing is to be done.
	OK Result = "ok"
	// Warning means that the installation works now, but can soon have a problem.
	Warning Result = "warning"
	// Failed means that claims are not protected, or that their pods cannot start.
	Failed Result = "failed"
	// Unknown means that the API server did not return what the check needs.
	Unknown Result = "unknown"
)

// Finding is the outcome of one check.
type Finding struct {
	Check  string `json:"check"`
	Result Result `json:"result"`
	// Says is one sentence about the state of the checked part of the cluster.
	Says string `json:"says"`
	// Do is a command or an instruction; empty if nothing is to be done.
	Do string `json:"do,omitempty"`
	// Forbidden reports that the person lacks the right to read what the check needs.
	Forbidden bool `json:"-"`
}

// Cluster is the cluster that is judged.
type Cluster struct {
	client.Client
	// Version is the API server's version.
	Version version.Info
	// Now is the API server's time.
	Now time.Time
	// Fair reports whether the API server uses API Priority and Fairness: its answers name a FlowSchema.
	Fair bool
	// Image, if not empty, is an image whose command the webhook is to read.
	Image string
	// Release is the version of this plugin, as v1.2.3; empty if this build belongs to no release.
	Release string
	// Target returns the argument by which a person names a slot to a command; empty for none.
	Target func(slot string) string
}

func ok(format string, args ...any) (Finding, error) {
	return Finding{Result: OK, Says: fmt.Sprintf(format, args...)}, nil
}

// found returns a finding that is not OK.
func found(r Result, do, format string, args ...any) (Finding, error) {
	return Finding{Result: r, Says: fmt.Sprintf(format, args...), Do: do}, nil
}

// object returns an object of a kind for which the plugin has no Go type.
func object(version, kind, namespace, name string) *unstructured.Unstructured {
	o := new(unstructured.Unstructured)
	o.SetAPIVersion(version)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// most is the largest number of names in one sentence.
const most = 5

// count returns a number with its noun, and perhaps a verb.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// some sorts the names, and returns a text with the names. If there are more than [most] names, the
// text ends with the number of the names that the text leaves out.
func some(names []string) string {
	slices.Sort(names)
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
