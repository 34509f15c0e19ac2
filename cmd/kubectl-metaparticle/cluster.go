// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"

	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/mutate/feature"
)

// cluster is a client of the API server. The field "minor" has the number after the dot of
// the server's version, such as 35 for Kubernetes 1.35.
type cluster struct {
	client.WithWatch
	minor int
}

// connection has the flags by which a command finds its cluster and its namespace.
type connection struct {
	rules     *clientcmd.ClientConfigLoadingRules
	overrides *clientcmd.ConfigOverrides
}

// newNamespaceFlags returns the flags of a command that acts on one namespace.
func newNamespaceFlags(name, usage string, std stdio) (*flag.FlagSet, connection) {
	flags, c := newFlags(name, usage, std)
	const namespaceUsage = "namespace; default: that of the context"
	flags.StringVar(&c.overrides.Context.Namespace, "n", "", namespaceUsage)
	flags.StringVar(&c.overrides.Context.Namespace, "namespace", "", namespaceUsage)
	return flags, c
}

// newFlags returns the flags of a command, with those by which the command finds its cluster.
func newFlags(name, usage string, std stdio) (*flag.FlagSet, connection) {
	c := connection{rules: clientcmd.NewDefaultClientConfigLoadingRules(), overrides: &clientcmd.ConfigOverrides{}}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(std.out)
	flags.Usage = func() {
		fmt.Fprint(std.out, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&c.overrides.CurrentContext, "context", "", "context of the kubeconfig")
	flags.StringVar(&c.rules.ExplicitPath, "kubeconfig", "", "file to find the cluster by (environment: KUBECONFIG)")
	return flags, c
}

// open returns the cluster and the namespace.
func (c connection) open() (cluster, string, error) {
	connection, err := c.config()
	if err != nil {
		return cluster{}, "", err
	}
	namespace, _, err := c.loading().Namespace()
	if err != nil {
		return cluster{}, "", fmt.Errorf("find the namespace: %w", err)
	}
	withWatch, err := client.NewWithWatch(connection, client.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		return cluster{}, "", fmt.Errorf("reach the cluster: %w", err)
	}
	return cluster{WithWatch: withWatch, minor: minor(connection)}, namespace, nil
}

// unlimited returns the cluster with a client that sends requests as fast as the API server
// answers.
func (c connection) unlimited() (cluster, error) {
	connection, err := c.config()
	if err != nil {
		return cluster{}, err
	}
	connection.QPS = -1
	withWatch, err := client.NewWithWatch(connection, client.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		return cluster{}, fmt.Errorf("reach the cluster: %w", err)
	}
	return cluster{WithWatch: withWatch}, nil
}

// loading returns the kubeconfig as the flags change it.
func (c connection) loading() clientcmd.ClientConfig {
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(c.rules, c.overrides)
}

// config returns the configuration of a client of the API server.
func (c connection) config() (*rest.Config, error) {
	config, err := c.loading().ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, errors.New("no kubeconfig names a cluster: set KUBECONFIG, or name a file by -kubeconfig")
	case err != nil:
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	return config, nil
}

// begin parses a command's arguments, and opens the cluster. The third result has the arguments
// that are not flags. If the function "judge" returns an error about these arguments, begin does
// not open the cluster.
func (c connection) begin(flags *flag.FlagSet, args []string, judge func([]string) error) (cluster, string, []string, error) {
	rest, err := parse(flags, args)
	if err != nil {
		return cluster{}, "", nil, err
	}
	if err := judge(rest); err != nil {
		return cluster{}, "", nil, err
	}
	opened, namespace, err := c.open()
	return opened, namespace, rest, err
}

// minor returns the cluster's minor version, such as 35 for Kubernetes 1.35. If the version
// is unknown, the result is a version with which every gate works. The webhook, however,
// refuses the gate `pod` while the webhook does not know the version.
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
