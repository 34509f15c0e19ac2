// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// recovering is one recovery that a person asks for.
type recovering struct {
	cluster cluster
	std     stdio
	floor   uint64
	// ignored has names of namespaces, Leases and Variables. The tokens of these Leases and
	// Variables, and all tokens in these namespaces, do not count.
	ignored []string
	dryRun  bool
	timeout time.Duration
}

// state is the cluster at one revision of etcd.
type state struct {
	revision uint64
	// slots are the Leases of all claims, without those of barriers.
	slots []coordinationv1.Lease
	// foreign are the Leases and Variables with a token above the revision. Such a token comes from
	// another cluster, or from a time before a restore of etcd. A pod can also write any number
	// into its own Lease. The greatest token comes first.
	foreign []bearer
}

// mostAbove bounds a floor that the command itself takes from a token in the cluster. Such a
// floor is at most mostAbove above etcd's revision, or above the floor that the person named if
// that floor is greater. The command writes until etcd's revision is above the floor. So a
// token in a Lease causes at most half a minute of writes. A person who reads the last revision
// in etcd's database misses the writes in etcd's log, but these are at most mostAbove
// (docs/operate/recover.md).
const mostAbove = 10_000

// bearer is a Lease or Variable with its token.
type bearer struct {
	kind, namespace, name string
	token                 uint64
}

func (b bearer) String() string { return fmt.Sprintf("the %s %s in %s", b.kind, b.name, b.namespace) }

// note stores the bearer of a token above etcd's revision, unless the person has named the bearer
// or its namespace by --ignore.
func (r recovering) note(s *state, kind string, of client.Object, token uint64) {
	b := bearer{kind, of.GetNamespace(), of.GetName(), token}
	if token > s.revision && !slices.Contains(r.ignored, b.namespace) && !slices.Contains(r.ignored, b.namespace+"/"+b.name) {
		s.foreign = append(s.foreign, b)
	}
}

// greatest returns the greatest token above etcd's revision, or zero without such a token.
func (s state) greatest() uint64 {
	if len(s.foreign) == 0 {
		return 0
	}
	return s.foreign[0].token
}

// mostNamed is the largest number of Leases and Variables that [state.ignoring] names.
const mostNamed = 5

// ignoring returns the flags that leave out the tokens far above the number "near". Of many such
// tokens, the text names the greatest ones.
func (s state) ignoring(near uint64) string {
	var names []string
	for _, b := range s.foreign {
		if b.token > near && b.token-near > mostAbove {
			names = append(names, "--ignore "+b.namespace+"/"+b.name)
		}
	}
	if len(names) > mostNamed {
		return fmt.Sprintf("%s, and %d more such flags, or --ignore NAMESPACE", strings.Join(names[:mostNamed], " "), len(names)-mostNamed)
	}
	return strings.Join(names, " ")
}

// source returns a text with the name of the Lease or Variable whose token is the floor. The text
// is empty if a person named a higher floor.
func (s state) source(floor uint64) string {
	if s.greatest() < floor {
		return ""
	}
	return ", the token of " + s.foreign[0].String() + ","
}

// unfinished adds to an error what a person must know: slots may stay paused.
func unfinished(err error, floor uint64) error {
	return fmt.Errorf("%w; slots may stay paused: repeat the command with --floor %d", err, floor)
}

// read returns the state of the cluster. The list request names no resourceVersion, so the API
// server answers with a consistent list of etcd's newest state.
func (r recovering) read(ctx context.Context) (state, error) {
	var list coordinationv1.LeaseList
	if err := r.cluster.List(ctx, &list, client.HasLabels{api.ManagedLabel}); err != nil {
		return state{}, fmt.Errorf("list leases: %w", err)
	}
	revision, err := strconv.ParseUint(list.ResourceVersion, 10, 64)
	if err != nil {
		return state{}, fmt.Errorf("the API server's revision is no number: %w", err)
	}
	now := state{revision: revision}
	for _, l := range list.Items {
		r.note(&now, "Lease", &l, tokenOf(&l))
		if api.IsSlot(l.Name) && api.RunOf(l.Name) == "" {
			now.slots = append(now.slots, l)
		}
	}
	variables := &unstructured.UnstructuredList{}
	variables.SetGroupVersionKind(schema.GroupVersionKind{Group: "metaparticle.io", Version: "v1alpha1", Kind: "VariableList"})
	if err := r.cluster.List(ctx, variables); err != nil && !apimeta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
		return state{}, fmt.Errorf("list Variables: %w", err)
	}
	for _, v := range variables.Items {
		if token, ok, _ := unstructured.NestedInt64(v.Object, "spec", "fence", "token"); ok && token > 0 {
			r.note(&now, "Variable", &v, uint64(token))
		}
	}
	slices.SortStableFunc(now.foreign, func(a, b bearer) int { return cmp.Compare(b.token, a.token) })
	return now, nil
}

// readAgain returns the state of the cluster after the command has paused slots. An error that can
// end soon must not leave these slots paused, so the method repeats the read.
func (r recovering) readAgain(ctx context.Context) (state, error) {
	var now state
	err := patiently(ctx, refusesWrites, func(ctx context.Context) error {
		read, err := r.read(ctx)
		now = read
		return err
	})
	return now, err
}

// tokenOf returns the token that the Lease records, or zero if the Lease has no valid token.
func tokenOf(l *coordinationv1.Lease) uint64 {
	token, err := strconv.ParseUint(l.Annotations[api.TokenAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return token
}

// outdated returns the Leases whose holder needs a new token.
func (s state) outdated(floor uint64) []coordinationv1.Lease {
	return slices.DeleteFunc(slices.Clone(s.slots), func(l coordinationv1.Lease) bool { return !isOutdated(&l, floor) })
}

// isOutdated reports whether the holder of the Lease needs a new token. The reason is a token that
// is not above the floor, or a hold that has no token yet. The holder of a start lock never gets a
// token, so the Lease of a start lock is never outdated.
func isOutdated(l *coordinationv1.Lease, floor uint64) bool {
	life, _ := api.SplitSlots([]string{l.Name})
	return len(life) > 0 && api.IsIdentity(view.HolderOf(l)) && tokenOf(l) <= floor
}

// interrupted reports whether an earlier command "recover" has left a slot paused.
func (s state) interrupted() bool {
	return slices.ContainsFunc(s.slots, func(l coordinationv1.Lease) bool { return api.PauseOf(l.Annotations) == api.PauseRecover })
}
