// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/mutate/feature"
)

// cluster is a client of the API server. The field "minor" has the number after the dot of
// the server's version, such as 35 for Kubernetes 1.35.
type cluster struct {
	client.WithWatch
	minor int
}

// errNoCluster replaces a connection to localhost, which kubectl tries without a kubeconfig.
var errNoCluster = errors.New("no kubeconfig names a cluster: set KUBECONFIG, or name a file by --kubeconfig")

// config returns the configuration of a client of the API server, as kubectl's flags change it.
func (p *plugin) config() (*rest.Config, error) {
	loading := p.kube.ToRawKubeConfigLoader()
	config, err := loading.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	raw, err := loading.RawConfig()
	nowhere := err == nil && len(raw.Clusters) == 0 && *p.kube.APIServer == ""
	if inside, err := rest.InClusterConfig(); nowhere && (err != nil || inside.Host != config.Host) {
		return nil, errNoCluster
	}
	config.WarningHandler = rest.NewWarningWriter(p.std.err, rest.WarningWriterOptions{Deduplicate: true})
	return config, nil
}

// open returns the cluster and the namespace. The functions change the client's configuration.
func (p *plugin) open(changes ...func(*rest.Config)) (cluster, string, error) {
	config, err := p.config()
	if err != nil {
		return cluster{}, "", err
	}
	for _, change := range changes {
		change(config)
	}
	namespace, _, err := p.kube.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return cluster{}, "", fmt.Errorf("find the namespace: %w", err)
	}
	withWatch, err := client.NewWithWatch(config, client.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		return cluster{}, "", fmt.Errorf("reach the cluster: %w", err)
	}
	return cluster{WithWatch: withWatch}, namespace, nil
}

// unlimited lets a client send requests as fast as the API server answers.
func unlimited(config *rest.Config) { config.QPS = -1 }

// openApart opens the cluster with a connection for each request in flight, which closes if the request times out.
// With HTTP/2 all requests share one connection. If it stalls, client-go finds out only after 45 s,
// and a lease has expired before.
func (p *plugin) openApart() (c cluster, namespace string, err error) {
	return p.open(func(config *rest.Config) { config.NextProtos = []string{"http/1.1"} })
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
