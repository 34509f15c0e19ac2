// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// kindsByName maps the names that kubectl accepts, such as "deploy", to kinds of objects.
var kindsByName = map[string]string{
	"pod": "Pod", "po": "Pod", "deployment": "Deployment", "deploy": "Deployment",
	"statefulset": "StatefulSet", "sts": "StatefulSet", "daemonset": "DaemonSet", "ds": "DaemonSet",
	"replicaset": "ReplicaSet", "rs": "ReplicaSet", "job": "Job", "cronjob": "CronJob", "cj": "CronJob",
}

// target parses KIND/NAME, or KIND NAME as kubectl does. The name of a slot stands for the workload
// in that name.
func target(args []string) (kind, name string, err error) {
	written := strings.Join(args, "/")
	if slot := slotName(args); slot != "" {
		if written = targetOf(slot); written == "" || api.ScopeOf(slot) == api.ScopeNamespace {
			return "", "", fmt.Errorf("%q names no workload: name the workload or one of its pods, as deployment/biller or pod/NAME", strings.Join(args, " "))
		}
	}
	kind, name, ok := strings.Cut(written, "/")
	if written == "" {
		return "", "", errors.New("name a workload or a pod, such as deployment/biller")
	}
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("%q: write KIND/NAME, as deployment/biller", strings.Join(args, " "))
	}
	// A person may add the API group to the kind, as in deployments.apps.
	short, _, _ := strings.Cut(strings.ToLower(kind), ".")
	known := kindsByName[short]
	if known == "" {
		known = kindsByName[strings.TrimSuffix(short, "s")]
	}
	if known == "" {
		return "", "", fmt.Errorf("%q is no kind of workload that this command knows: name one of its pods, as pod/NAME", kind)
	}
	return known, name, nil
}

// slotName returns the slot whose Lease the arguments name: NAME or lease/NAME, as kubectl and the
// output of "status" write it. The result is empty for other arguments. Of a read-write lock, the
// command "status" writes the name without a number, so the result is then one of the lock's slots.
func slotName(args []string) string {
	name := strings.Join(args, "/")
	if kind, rest, ok := strings.Cut(name, "/"); ok {
		kind, _, _ = strings.Cut(strings.ToLower(kind), ".")
		if kind != "lease" && kind != "leases" {
			return ""
		}
		name = rest
	}
	switch {
	case api.IsSlot(name):
		return name
	case strings.HasPrefix(name, view.RWLock+".") && api.IsSlot(name+".0"):
		return name + ".0"
	}
	return ""
}
