// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/metaparticle-io/metaparticle/setup"
)

// configuration is the name of the webhook configuration in manifests/.
const configuration = "metaparticle"

// stepTime bounds one hook of the Helm chart. Helm itself waits for five minutes. The search of
// [setup.Disarm] for gated pods takes at most 95 s if no request hangs. In the remaining
// time, setup.Disarm repeats failed attempts to restore the webhook's configuration until the API
// server answers.
const stepTime = 4 * time.Minute

// step is a step of an installation, which a hook of the Helm chart takes in a pod of its own.
type step func(ctx context.Context, c client.Client, namespace string, out io.Writer) error

// steps has each step by its name. If the first argument is this name, the command takes the step,
// and does not run the webhook.
var steps = map[string]step{
	"try":             try,
	"begin-uninstall": beginUninstall,
	"end-uninstall":   endUninstall,
}

// take connects to the cluster, and takes one step.
func take(ctx context.Context, do step, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("step", flag.ContinueOnError)
	flags.SetOutput(out)
	namespace := flags.String("namespace", "", "namespace of the step")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	log.SetLogger(log.Log.WithSink(log.NullLogSink{}))
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	// With client-go's rate limit, the deletion of some thousand Leases would take too long.
	config.QPS = -1
	c, err := client.New(config, client.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	return do(ctx, c, *namespace, out)
}

// try proves that the webhook gates a pod of the namespace, and that a policy refuses a pod with
// forged marks.
func try(ctx context.Context, c client.Client, namespace string, out io.Writer) error {
	if err := setup.AwaitGating(ctx, c, namespace); err != nil {
		return err
	}
	if err := setup.AwaitPolicies(ctx, c, namespace); err != nil {
		return err
	}
	fmt.Fprintln(out, "the webhook gated a pod, and a policy refused a pod with forged marks")
	return nil
}

// beginUninstall makes the webhook gate no more pods. While gated pods exist, the function returns
// an error, and the webhook stays or returns ([setup.Disarm]). While the API server answers, the
// function takes half a minute.
func beginUninstall(ctx context.Context, c client.Client, _ string, out io.Writer) error {
	return setup.Disarm(ctx, c, configuration, out)
}

// endUninstall deletes the objects that enroll made, after the webhook's pods have ended. An
// earlier deletion would be in vain, because enroll creates lost Leases again. While gated pods
// exist, the function returns an error and deletes nothing. Some tools, such as Argo CD, run only
// the last hook, so no earlier hook has looked for gated pods.
func endUninstall(ctx context.Context, c client.Client, namespace string, out io.Writer) error {
	if err := setup.RefuseUsed(ctx, c, out); err != nil {
		return err
	}
	if err := setup.AwaitNoPods(ctx, c, namespace, map[string]string{"app.kubernetes.io/name": "metaparticle-webhook"}); err != nil {
		return err
	}
	made, err := setup.RemoveMade(ctx, c, out)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "deleted %d Leases, Roles and bindings\n", made)
	return nil
}
