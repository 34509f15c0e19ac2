// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/image/registry"
)

// settings are the values of the flags.
type settings struct {
	agentImage string

	port           int
	certDir        string
	clientCA       string
	metricsAddress string
	healthAddress  string
	timeout        time.Duration

	registries      registry.Options
	bindPullSecrets bool
	webhookAccount  string
	namespace       string
	leaderElection  bool
	verbose         bool
}

func parse(args []string, output io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.StringVar(&s.agentImage, "agent-image", os.Getenv("AGENT_IMAGE"), "image of the agent (environment: AGENT_IMAGE)")
	flags.IntVar(&s.port, "port", 10250, "port for the API server's calls")
	flags.StringVar(&s.certDir, "cert-dir", "/certificates", "directory of tls.crt and tls.key; read again when they change")
	flags.StringVar(&s.clientCA, "client-ca-file", "",
		"file of certificates; a caller without a client certificate signed by one is not answered; read again when it changes")
	flags.StringVar(&s.metricsAddress, "metrics-address", ":8080", "address of /metrics; 0 for none")
	flags.StringVar(&s.healthAddress, "health-address", ":8081", "address of /healthz and /readyz")
	// The API server waits for 10 s. With a shorter default, the webhook answers in time.
	flags.DurationVar(&s.timeout, "timeout", admit.DefaultTimeout, "time to answer one call in")
	// This time includes the reads of the pull secrets. The rest of the time for the call is for
	// the other reads, such as those of the pod's owners.
	flags.DurationVar(&s.registries.Budget, "image-timeout", 2500*time.Millisecond, "time to read an image's entrypoint in")
	registry.Flags(flags, &s.registries)
	flags.BoolVar(&s.bindPullSecrets, "bind-pull-secrets", true, "bind ClusterRole metaparticle-pull-secrets where a namespace opts in")
	flags.StringVar(&s.webhookAccount, "service-account", "metaparticle-webhook", "service account that this program runs as")
	flags.StringVar(&s.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace that this program runs in (environment: POD_NAMESPACE)")
	flags.BoolVar(&s.leaderElection, "leader-election", true, "let one replica enroll at a time")
	flags.BoolVar(&s.verbose, "verbose", false, "log more")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	switch {
	case flags.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case s.agentImage == "":
		return s, fmt.Errorf("no agent image: set --agent-image or AGENT_IMAGE")
	case s.namespace == "":
		return s, fmt.Errorf("no namespace: set --namespace or POD_NAMESPACE")
	}
	return s, nil
}
