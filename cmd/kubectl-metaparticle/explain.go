// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
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
