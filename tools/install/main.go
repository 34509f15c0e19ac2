// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command install applies manifests/ with the given images to the cluster of
// KUBECONFIG, and waits until the webhook gates a pod. With -uninstall the command
// removes the installation, except the Variables, their definition, done keys and the records of open
// barriers. If gated pods exist, the command lists them and removes nothing.
//
//	go run ./tools/install -webhook-image HOST/webhook:TAG -agent-image HOST/agent:TAG
//	go run ./tools/install -uninstall
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/metaparticle-io/metaparticle/tools/render"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "install:", err)
		os.Exit(1)
	}
}

// settings are the values of the flags.
type settings struct {
	render.Settings
	uninstall bool
	render    bool
	wait      time.Duration
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("install", flag.ContinueOnError)
	flags.StringVar(&s.Manifests, "manifests", "manifests", "directory of the manifests")
	flags.StringVar(&s.WebhookImage, "webhook-image", "", "image of the webhook, as nodes pull it")
	flags.StringVar(&s.AgentImage, "agent-image", "", "image of the agent, as nodes pull it")
	flags.Func("component", "directory below manifests/components; may be repeated", func(value string) error {
		s.Components = append(s.Components, value)
		return nil
	})
	flags.Func("plain-http-registry", "host[:port] of a registry that the webhook reads images from without TLS; may be repeated", func(value string) error {
		s.PlainHTTP = append(s.PlainHTTP, value)
		return nil
	})
	flags.BoolVar(&s.uninstall, "uninstall", false, "remove the installation")
	flags.BoolVar(&s.render, "render", false, "print what would be applied")
	// A new node pulls two images and starts a pod in less than three minutes.
	flags.DurationVar(&s.wait, "wait", 3*time.Minute, "how long to wait for the webhook")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log.SetLogger(log.Log.WithSink(log.NullLogSink{}))
	objects, err := render.Objects(s.Settings)
	if err != nil {
		return err
	}
	if s.render {
		return render.Print(out, objects)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	config.QPS = -1
	c, err := client.New(config, client.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	if s.uninstall {
		return uninstall(ctx, c, objects, out)
	}
	if s.WebhookImage == "" || s.AgentImage == "" {
		return errors.New("name both -webhook-image and -agent-image")
	}
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	return install(ctx, c, objects, out)
}
