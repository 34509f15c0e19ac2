// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const explainUsage = `Tells why a pod or workload is gated or not, and which pods hold its slots. The
command only reads. KIND is pod, deployment, statefulset, daemonset, replicaset,
job or cronjob, or kubectl's short name of the kind.

  kubectl metaparticle explain [-n NAMESPACE] KIND/NAME
`

// readTimeout bounds the time of all reads, because a person waits.
const readTimeout = 30 * time.Second

func explainCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newNamespaceFlags("explain", explainUsage, std)
	rest, err := parse(flags, args)
	if err != nil {
		return exitError, err
	}
	kind, name, err := target(rest)
	if err != nil {
		return exitError, err
	}
	cluster, namespace, err := connection.open()
	if err != nil {
		return exitError, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return exitOK, explain(ctx, &explainer{cluster: cluster, namespace: namespace, now: time.Now()}, std.out, kind, name)
}

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

// explain reads the cluster's state and writes the answer about the object with the given kind and
// name.
func explain(ctx context.Context, e *explainer, out io.Writer, kind, name string) error {
	if err := e.gather(ctx, kind, name); err != nil {
		return err
	}
	e.judge()
	_, err := io.WriteString(out, e.report())
	return err
}
