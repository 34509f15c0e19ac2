// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/mutate/feature"
)

const explainUsage = `Says why a pod or workload is, or is not, gated, and who holds its slots.
It only reads. KIND is pod, deployment, statefulset, daemonset, replicaset, job
or cronjob, or kubectl's short name of it.

  kubectl metaparticle explain [-n NAMESPACE] KIND/NAME
`

// readTimeout bounds the time of all reads, because a person waits.
const readTimeout = 30 * time.Second

func explainCommand(ctx context.Context, args []string, std stdio) (int, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	overrides := &clientcmd.ConfigOverrides{}
	flags := flag.NewFlagSet("explain", flag.ContinueOnError)
	flags.SetOutput(std.err)
	flags.Usage = func() {
		fmt.Fprint(std.err, explainUsage)
		flags.PrintDefaults()
	}
	const namespaceUsage = "namespace; default: that of the context"
	flags.StringVar(&overrides.Context.Namespace, "n", "", namespaceUsage)
	flags.StringVar(&overrides.Context.Namespace, "namespace", "", namespaceUsage)
	flags.StringVar(&overrides.CurrentContext, "context", "", "context of the kubeconfig")
	flags.StringVar(&rules.ExplicitPath, "kubeconfig", "", "file to find the cluster by (environment: KUBECONFIG)")
	rest, err := parse(flags, args)
	if err != nil {
		return exitError, err
	}
	kind, name, err := target(rest)
	if err != nil {
		return exitError, err
	}
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	namespace, _, err := config.Namespace()
	if err != nil {
		return exitError, fmt.Errorf("find the cluster: %w", err)
	}
	connection, err := config.ClientConfig()
	if err != nil {
		return exitError, fmt.Errorf("find the cluster: %w", err)
	}
	reader, err := client.New(connection, client.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		return exitError, fmt.Errorf("reach the cluster: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return exitOK, explain(ctx, cluster{Reader: reader, minor: minor(connection)}, std.out, namespace, kind, name, time.Now())
}

// cluster is the API server to read from, and its minor version of Kubernetes 1.
type cluster struct {
	client.Reader
	minor int
}

// minor returns the cluster's minor version of Kubernetes 1. If the version is
// unknown, explain assumes that every gate works. The webhook refuses such pods
// itself.
func minor(connection *rest.Config) int {
	discover, err := discovery.NewDiscoveryClientForConfig(connection)
	if err != nil {
		return feature.RestartsAll
	}
	info, err := discover.ServerVersion()
	if err != nil {
		return feature.RestartsAll
	}
	n, err := feature.MinorVersion(info)
	if err != nil {
		return feature.RestartsAll
	}
	return n
}

// kindsByName maps the names that kubectl accepts to kinds.
var kindsByName = map[string]string{
	"pod": "Pod", "po": "Pod", "deployment": "Deployment", "deploy": "Deployment",
	"statefulset": "StatefulSet", "sts": "StatefulSet", "daemonset": "DaemonSet", "ds": "DaemonSet",
	"replicaset": "ReplicaSet", "rs": "ReplicaSet", "job": "Job", "cronjob": "CronJob", "cj": "CronJob",
}

// target parses KIND/NAME, or KIND NAME as kubectl does.
func target(args []string) (kind, name string, err error) {
	written := strings.Join(args, "/")
	kind, name, ok := strings.Cut(written, "/")
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("%q: write KIND/NAME, as deployment/biller", strings.Join(args, " "))
	}
	// For example, deployments.apps is a deployment.
	short, _, _ := strings.Cut(strings.ToLower(kind), ".")
	known := kindsByName[short]
	if known == "" {
		known = kindsByName[strings.TrimSuffix(short, "s")]
	}
	if known == "" {
		return "", "", fmt.Errorf("%q is no kind whose pods could be gated from here; ask about one of its pods", kind)
	}
	return known, name, nil
}

// explain reads the cluster's state and writes the answer.
func explain(ctx context.Context, c cluster, out io.Writer, namespace, kind, name string, now time.Time) error {
	e := &explainer{cluster: c, namespace: namespace, now: now}
	if err := e.gather(ctx, kind, name); err != nil {
		return err
	}
	e.judge()
	_, err := io.WriteString(out, e.report())
	return err
}
