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
	"slices"
	"syscall"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/setup"
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

// fieldOwner is the field manager of the applied objects.
const fieldOwner = client.FieldOwner("metaparticle-install")

var errConditionsLost = errors.New("cert-manager's cainjector dropped its matchConditions: while no webhook runs, unannotated pods of namespaces that opted in cannot start either; use cert-manager 1.13 or later")

// install applies the objects and waits until the webhook has gated a pod.
func install(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, out io.Writer) error {
	for _, object := range objects {
		// The first attempts may fail, because cert-manager's own webhook may still be starting.
		err := setup.Retry(ctx, func() error { return apply(ctx, c, object) })
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	fmt.Fprintf(out, "applied %d objects; waiting for the webhook\n", len(objects))
	for _, object := range objects {
		if object.GetKind() != "Deployment" {
			continue
		}
		if err := setup.Retry(ctx, func() error { return rolledOut(ctx, c, client.ObjectKeyFromObject(object)) }); err != nil {
			return err
		}
	}
	if err := answers(ctx, c); err != nil {
		return err
	}
	if err := whole(ctx, c, objects); errors.Is(err, errConditionsLost) {
		fmt.Fprintln(out, "warning:", err)
	} else if err != nil {
		return err
	}
	fmt.Fprintf(out, "installed: the webhook answers\n\n  kubectl label namespace NAMESPACE %s=%s\n", api.InjectionLabel, api.InjectionEnabled)
	return nil
}

func apply(ctx context.Context, c client.Client, object *unstructured.Unstructured) error {
	return c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object.DeepCopy()), fieldOwner, client.ForceOwnership)
}

// rolledOut returns nil once every pod has the current template and is available.
func rolledOut(ctx context.Context, c client.Client, key types.NamespacedName) error {
	var d appsv1.Deployment
	if err := c.Get(ctx, key, &d); err != nil {
		return fmt.Errorf("read deployment: %w", err)
	}
	wanted := ptr.Deref(d.Spec.Replicas, 1)
	if d.Status.ObservedGeneration == d.Generation && d.Status.UpdatedReplicas == wanted &&
		d.Status.AvailableReplicas == wanted && d.Status.Replicas == wanted {
		return nil
	}
	return fmt.Errorf("deployment %s: %d of %d pods are updated, %d available: kubectl -n %s describe pods",
		key, d.Status.UpdatedReplicas, wanted, d.Status.AvailableReplicas, key.Namespace)
}

// answers tries a pod in a temporary namespace until the webhook gates the pod.
func answers(ctx context.Context, c client.Client) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "metaparticle-install-",
		Labels:       map[string]string{api.InjectionLabel: api.InjectionEnabled},
	}}
	if err := c.Create(ctx, namespace); err != nil {
		return fmt.Errorf("make a namespace to try a pod in: %w", err)
	}
	defer func() {
		// The namespace is deleted even after an interrupt.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = c.Delete(ctx, namespace)
	}()
	return setup.AwaitGating(ctx, c, namespace.Name)
}

// whole checks that the webhook configuration still has its matchConditions. The cainjector of an
// old cert-manager writes the configuration back without its matchConditions. Then a stopped
// webhook also blocks unannotated pods.
func whole(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range ofKind(objects, "MutatingWebhookConfiguration") {
		var there admissionv1.MutatingWebhookConfiguration
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), &there); err != nil {
			return fmt.Errorf("read webhook configuration: %w", err)
		}
		for _, webhook := range there.Webhooks {
			if len(webhook.MatchConditions) == 0 {
				return fmt.Errorf("%s: %w", webhook.Name, errConditionsLost)
			}
		}
	}
	return nil
}

// definition is the kind of the object that defines Variables. The deletion of that object would
// delete all Variables.
const definition = "CustomResourceDefinition"

// uninstall deletes all installed objects except the definition of Variables. uninstall also
// deletes, by [setup.RemoveMade], the objects that enroll made. The order of the deletions makes
// sure that no gated pod loses its Lease.
func uninstall(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, out io.Writer) error {
	// The webhook configuration is emptied, and then deleted, before all other objects. From here on
	// a policy refuses pods that claim, because nothing gates them. If gated pods exist, Disarm
	// restores the configuration, even after an interrupt.
	for _, object := range ofKind(objects, "MutatingWebhookConfiguration") {
		if err := setup.Disarm(ctx, c, object.GetName(), out); err != nil {
			return err
		}
		if err := setup.Remove(ctx, c, object); err != nil {
			return err
		}
	}
	// Then enroll has to end, because enroll would create deleted Leases again. Afterwards the
	// policies are deleted, because one of them refuses the deletion of held Leases.
	if err := removeKinds(ctx, c, objects, "Deployment"); err != nil {
		return err
	}
	if err := noWebhookPods(ctx, c, objects); err != nil {
		return err
	}
	if err := setup.RefuseUsed(ctx, c, out); err != nil {
		return err
	}
	if err := removeKinds(ctx, c, objects, "ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"); err != nil {
		return err
	}
	made, err := setup.RemoveMade(ctx, c, out)
	if err != nil {
		return err
	}
	for _, object := range slices.Backward(objects) {
		if object.GetKind() == definition {
			continue
		}
		if err := setup.Remove(ctx, c, object); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "uninstalled; deleted %d Leases, Roles and bindings. Labels on namespaces and annotations on workloads are yours and stay, and so do Leases with done keys (metaparticle.io/done), and all Variables with their definition.\n", made)
	return nil
}

func ofKind(objects []*unstructured.Unstructured, kinds ...string) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool {
		return !slices.Contains(kinds, o.GetKind())
	})
}

func removeKinds(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, kinds ...string) error {
	for _, object := range ofKind(objects, kinds...) {
		if err := setup.Remove(ctx, c, object); err != nil {
			return err
		}
	}
	return nil
}

// noWebhookPods waits until the webhook's pods have ended.
func noWebhookPods(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range ofKind(objects, "Deployment") {
		selector, _, err := unstructured.NestedStringMap(object.Object, "spec", "selector", "matchLabels")
		if err != nil {
			return fmt.Errorf("selector of %s: %w", object.GetName(), err)
		}
		if err := setup.AwaitNoPods(ctx, c, object.GetNamespace(), selector); err != nil {
			return err
		}
	}
	return nil
}
