// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

const explainUsage = `Tells why a pod or workload is gated or not, and which pods hold its slots. What
keeps a claim from being in force comes first. The command only reads. KIND is
pod, deployment, statefulset, daemonset, replicaset, job or cronjob, or
kubectl's short name of the kind.

Exit codes: 0 each claim is in force, or nothing claims; 1 a claim is not in
force: new pods get no gate or are refused, a pod runs without its gate, or no
pod can run; 2 error.

  kubectl metaparticle explain [-n NAMESPACE] [-o json|yaml] KIND/NAME
`

// readTimeout bounds the time of all reads, because a person waits.
const readTimeout = 30 * time.Second

func explainCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newNamespaceFlags("explain", explainUsage, std)
	output := ""
	flags.StringVar(&output, "o", "", "json or yaml; default: text for people")
	rest, err := parse(flags, args)
	switch {
	case err != nil:
		return exitError, err
	case output != "" && output != "json" && output != "yaml":
		return exitError, fmt.Errorf("-o is %q: write json or yaml", output)
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
	return explain(ctx, &explainer{cluster: cluster, namespace: namespace, now: time.Now()}, std.out, output, kind, name)
}

// explain reads the cluster's state and writes the answer about the object with the given kind and
// name.
func explain(ctx context.Context, e *explainer, out io.Writer, output, kind, name string) (int, error) {
	if err := e.gather(ctx, kind, name); err != nil {
		return exitError, err
	}
	e.judge()
	e.notes = append(e.notes, e.notForwarded...)
	text, err := []byte(e.report()), error(nil)
	if output != "" {
		text, err = encoded(e.explanation(), output)
	}
	if err == nil {
		_, err = out.Write(text)
	}
	if err != nil {
		return exitError, err
	}
	if !e.inForce() {
		return exitRefused, nil
	}
	return exitOK, nil
}
