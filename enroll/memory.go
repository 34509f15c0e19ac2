// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// LeasesAnnotation stands on a Role and remembers each Lease that the Role
// names, even if it is gone.
const LeasesAnnotation = api.Prefix + "leases"

// memory is what a Role remembers of one Lease.
type memory struct {
	// Seconds is the longest duration ever claimed under the name.
	Seconds int32 `json:"seconds"`
	// UID is the Lease that the name was last seen on. To change it is what
	// makes a sweeper's compare-and-swap fail who still means its predecessor.
	UID types.UID `json:"uid"`
}

// ledger is a Role of ours with its memory, decoded once.
type ledger struct {
	role *rbacv1.Role
	// key is the roleKey of the account that the Role is for; empty if none.
	key      string
	memories map[string]memory
	// sound: the Role's rules are those that its memory makes.
	sound bool
	// bound: the Role is bound to its account, and to nobody else.
	bound bool
}

// ledgers are the Roles of a namespace that are ours.
type ledgers struct {
	all []*ledger
	// byKey are the Roles of each account.
	byKey map[string][]*ledger
	// longest are the longest durations, in seconds, that any Role remembers for
	// a Lease. Every Lease that a Role names has one.
	longest map[string]int32
}

// ledgers lists the Roles; consistently, if from is no cache.
func (r *Reconciler) ledgers(ctx context.Context, from client.Reader, namespace string) (*ledgers, error) {
	var list rbacv1.RoleList
	err := from.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	ls := &ledgers{byKey: map[string][]*ledger{}, longest: map[string]int32{}}
	for i := range list.Items {
		role := &list.Items[i]
		memories := remembered(role)
		ls.add(&ledger{
			role: role, key: keyOf(role.Name), memories: memories,
			sound: reflect.DeepEqual(role.Rules, rules(memories)),
		})
	}
	return ls, nil
}

func (ls *ledgers) add(l *ledger) {
	ls.all = append(ls.all, l)
	if l.key != "" {
		ls.byKey[l.key] = append(ls.byKey[l.key], l)
	}
	for lease, m := range l.memories {
		ls.longest[lease] = max(ls.longest[lease], m.Seconds)
	}
}

// named: a Role remembers the Lease.
func (ls *ledgers) named(lease string) bool {
	_, ok := ls.longest[lease]
	return ok
}

// duration is the longest that any Role remembers for the Lease.
func (ls *ledgers) duration(lease string) time.Duration {
	return time.Duration(ls.longest[lease]) * time.Second
}

// of are the Roles of an account that remember the Lease: one, but after a race
// of two processes.
func (ls *ledgers) of(key, lease string) []*ledger {
	var found []*ledger
	for _, l := range ls.byKey[key] {
		if _, ok := l.memories[lease]; ok {
			found = append(found, l)
		}
	}
	return found
}

// remembered reads a Role's memory. What nobody can read was not written by
// us; the names in its rules are then all there is.
func remembered(role *rbacv1.Role) map[string]memory {
	memories := map[string]memory{}
	if json.Unmarshal([]byte(role.Annotations[LeasesAnnotation]), &memories) != nil || memories == nil {
		memories = map[string]memory{}
	}
	// Somebody may have overwritten the annotation: what the Role names was held.
	for _, rule := range role.Rules {
		if slices.Contains(rule.Resources, "leases") {
			for _, name := range rule.ResourceNames {
				if _, ok := memories[name]; !ok {
					memories[name] = memory{Seconds: seconds(api.MaxLeaseDuration)}
				}
			}
		}
	}
	return memories
}

// remember makes the Role be as its memory.
func (l *ledger) remember() error {
	text, err := json.Marshal(l.memories)
	if err != nil {
		return fmt.Errorf("write memory of role %s: %w", l.role.Name, err)
	}
	if l.role.Annotations == nil {
		l.role.Annotations = map[string]string{}
	}
	l.role.Annotations[LeasesAnnotation] = string(text)
	l.role.Rules = rules(l.memories)
	return nil
}

// seconds rounds up: a Lease says whole ones.
func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }
