// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
)

// kindsByName maps the names that kubectl accepts, such as "deploy", to kinds of objects.
var kindsByName = map[string]string{
	"pod": "Pod", "po": "Pod", "deployment": "Deployment", "deploy": "Deployment",
	"statefulset": "StatefulSet", "sts": "StatefulSet", "daemonset": "DaemonSet", "ds": "DaemonSet",
	"replicaset": "ReplicaSet", "rs": "ReplicaSet", "job": "Job", "cronjob": "CronJob", "cj": "CronJob",
}

// target parses KIND/NAME, or KIND NAME as kubectl does.
func target(args []string) (kind, name string, err error) {
	written := strings.Join(args, "/")
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
