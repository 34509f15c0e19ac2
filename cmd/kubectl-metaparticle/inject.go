// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/image/registry"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// registryTimeout bounds the time of the requests to a registry. This time is longer than the
// webhook's 2.5 s, because no pod waits for the answer.
const registryTimeout = 10 * time.Second

const injectLong = `Shows the webhook's changes to a manifest. The webhook carries the annotations of
a workload to its pod template, and gates a bare pod. All other objects stay as
they are. On stderr, the command tells which pods the webhook would refuse, and
which annotations it does not understand: in objects of an old API version, with
a misspelt prefix, or at a place where they have no effect. Of objects whose pods
another controller makes (a Helm release, a custom resource), a note says what the
command cannot know. With a directory, files that are no manifests are left out.
The command itself asks registries for the commands of images. So the command
needs the registry flags of the webhook: --plain-http-registry, --registry-ca,
--registry-mirror and --registry-network.

Exit codes: 0 done; 1 the webhook would refuse a pod, or an annotation has no
effect; 2 error, such as a manifest that cannot be read.`

type injector struct {
	output     string
	pods       bool
	agentImage string
	kubernetes int
	images     image.Images
	// offline reports that the command reads no image from a registry.
	offline bool
	std     stdio

	file    string
	several bool // more than one file is read
	written bool
	refused bool
	// broken reports that a file of a directory is a manifest that cannot be read.
	broken bool
	// unread reports that an image could not be read.
	unread bool
	// changed reports that the webhook would change an object, or possibly a pod that another
	// program makes of an object.
	changed bool
	left    leftovers
}

func (p *plugin) injectCommand() *cobra.Command {
	i := &injector{std: p.std, kubernetes: feature.RestartsAll, images: offline{}}
	from := genericclioptions.FileNameFlags{Usage: "manifest `FILE` or directory to read, - for stdin; may be repeated", Filenames: &[]string{}, Recursive: new(bool)}
	options := registry.Options{
		Budget: registryTimeout, ByPerson: true, Failed: func(_, image string, cause error) { i.failed(image, cause) },
	}
	c := &cobra.Command{
		Use: "inject -f FILE", Short: "Show the webhook's changes to a manifest", Long: injectLong,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unexpected argument %q; name manifests with -f", args[0])
			}
			return nil
		},
		Example: `  kubectl metaparticle inject -f biller.yaml -o diff
  kubectl metaparticle inject -R -f deploy/ --offline
  helm template biller ./chart | kubectl metaparticle inject -f - | kubectl apply -f -`,
	}
	from.AddFlags(c.Flags())
	c.Flags().StringVarP(&i.output, "output", "o", "yaml", "yaml, or diff against the input")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"yaml", "diff"}, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().BoolVar(&i.pods, "pods", false, "show also a gated pod of each workload")
	c.Flags().StringVar(&i.agentImage, "agent-image", "metaparticle-agent", "image of the agent")
	c.Flags().BoolVar(&i.offline, "offline", false, "read no image from a registry; a container without a command is then refused")
	numberFlag(c.Flags(), &i.kubernetes, "kubernetes", fmt.Sprintf("`MINOR` version of the cluster's Kubernetes, such as 37 for 1.37; default: %d", feature.RestartsAll),
		"write the minor version alone, such as 37 for 1.37")
	images := flag.NewFlagSet("", flag.ContinueOnError)
	registry.Flags(images, &options)
	c.Flags().AddGoFlagSet(images)
	c.RunE = p.runs(func(ctx context.Context, _ []string) (int, error) {
		files, err := manifestFiles(*from.Filenames, *from.Recursive)
		switch {
		case err != nil:
			return exitError, err
		case len(files) == 0:
			return exitError, errors.New("no manifest: name one with -f, or -f - for stdin")
		case i.output != "yaml" && i.output != "diff":
			return exitError, fmt.Errorf("-o is %q: write yaml or diff", i.output)
		}
		return i.run(ctx, files, options)
	})
	return c
}

// failed writes why an image could not be read. The cause may quote the registry, so failed writes
// one line of bounded length.
func (i *injector) failed(image string, cause error) {
	say(i.std.err, "image %s: %s", image, bounded(strings.ReplaceAll(cause.Error(), "\n", "; ")))
}

func (i *injector) inject(ctx context.Context, d document) error {
	lost, unsure := d.strays()
	for _, text := range lost {
		i.refused = true
		say(i.std.err, "not understood: %s: %s", i.name(d), text)
	}
	for _, text := range unsure {
		i.changed = true
		say(i.std.err, "note: %s: %s", i.name(d), text)
	}
	i.left.judge(i.file, d)
	switch {
	case !d.mentions(), d.unrendered():
	case d.fragment():
		i.changed = true
		say(i.std.err, "note: %s has no containers with a name and an image here, so it is only a part of a %s, as for kustomize: render the whole first", i.name(d), d.Kind)
	case d.pod():
		return i.barePod(ctx, d)
	case d.workload():
		return i.workload(ctx, d)
	}
	if err := i.show(d.String(), change{string(d.text), string(d.text)}); err != nil || d.old() || d.fragment() || d.unrendered() {
		return err
	}
	return i.foreign(ctx, d)
}

// name returns the name of an object for a message. Of several files, the name has that of its file.
func (i *injector) name(d document) string {
	if i.several {
		return i.file + ": " + d.String()
	}
	return d.String()
}

// foreign judges the pod templates of an object whose kind the webhook does not know, such as a
// Rollout. The webhook gates the pods of such an object, too, but reads only their own annotations.
func (i *injector) foreign(ctx context.Context, d document) error {
	pods, err := d.foreignPods()
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if len(pod.mistakes) > 0 {
			i.refused = true
			say(i.std.err, "refused: pods of %s, as %s stands here: %v", i.name(d), pod.place, pod.mistakes)
			continue
		}
		if pod.unsure != "" {
			i.changed = true
			say(i.std.err, "note: the webhook gates the pods that %s makes by its %s; %s", i.name(d), pod.place, pod.unsure)
			continue
		}
		its := i.askAboutPod(ctx, pod.document, pod.of)
		switch {
		case !its.Allowed:
			i.refuse("pods of "+i.name(d)+", as "+pod.place+" stands here", its)
			continue
		case len(its.Patches) == 0:
			continue
		}
		i.changed = true
		say(i.std.err, "note: the webhook gates the pods that %s makes by its %s; their slot is named by the workload that owns them", i.name(d), pod.place)
		if i.pods {
			if err := i.showPod(d, pod.document, its.Patches); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *injector) barePod(ctx context.Context, d document) error {
	answer := i.askAboutPod(ctx, d, owner{})
	if !answer.Allowed {
		i.refuse(i.name(d), answer)
		return nil
	}
	return i.result(d, answer.Patches)
}

func (i *injector) workload(ctx context.Context, d document) error {
	answer := admit.NewWorkloadHandler(admit.Options{Kubernetes: i.minor}).Handle(ctx, request(d))
	if !answer.Allowed {
		i.refuse(i.name(d), answer)
		return nil
	}
	if err := i.result(d, answer.Patches); err != nil {
		return err
	}
	carried, err := apply(d.raw, answer.Patches)
	if err != nil {
		return err
	}
	pod, of, err := podOf(d, carried)
	if err != nil {
		return err
	}
	its := i.askAboutPod(ctx, pod, of)
	for _, warning := range answer.Warnings {
		i.refused = i.refused || strings.HasPrefix(warning, string(reason.NoEffectHere)+": ")
		// A refusal must not appear as a warning, too.
		if its.Allowed || !strings.Contains(its.Result.Message, warning) {
			say(i.std.err, "warning: %s: %s", i.name(d), warning)
		}
	}
	if !its.Allowed {
		i.refuse("pods of "+i.name(d), its)
		return nil
	}
	i.changed = i.changed || len(its.Patches) > 0
	if !i.pods || len(its.Patches) == 0 {
		return nil
	}
	return i.showPod(d, pod, its.Patches)
}

// showPod shows a pod that this command generated. The manifest has no text of this pod.
func (i *injector) showPod(d, pod document, patches []operation) error {
	if pod.raw, _ = ownerless(pod.raw); pod.raw == nil {
		return fmt.Errorf("%s: its pod cannot be written", d)
	}
	c, err := pod.patch(patches)
	if err != nil {
		return err
	}
	if i.output == "yaml" {
		c.after = "# " + inOneLine(bounded("a pod of "+d.String())) + "\n" + c.after
	}
	return i.show("a pod of "+d.String(), c)
}

func (i *injector) result(d document, patches []operation) error {
	if len(patches) == 0 {
		return i.show(d.String(), change{string(d.text), string(d.text)})
	}
	c, err := d.patch(patches)
	if err != nil {
		return err
	}
	return i.show(d.String(), c)
}

func (i *injector) show(what string, c change) error {
	i.changed = i.changed || c.before != c.after
	if i.output == "diff" {
		// A stranger chooses the name of an object. With a line feed, the name could be the header of
		// another file, and the program patch would change that file.
		header := func(what string) string { return inOneLine(i.file + " (" + what + ")") }
		what = bounded(what)
		text, err := c.diff(header(what), header(what+", injected"))
		fmt.Fprint(i.std.out, text)
		return err
	}
	if i.written {
		say(i.std.out, "---")
	}
	i.written = true
	if !strings.HasSuffix(c.after, "\n") {
		c.after += "\n"
	}
	_, err := io.WriteString(verbatim(i.std.out), c.after)
	return err
}

// refuse reports a refusal in the webhook's words.
func (i *injector) refuse(what string, answer admission.Response) {
	i.refused = true
	i.unread = i.unread || strings.Contains(answer.Result.Message, string(reason.ImageUnreadable)+": ")
	say(i.std.err, "refused: %s: %s", what, answer.Result.Message)
}

func (i *injector) askAboutPod(ctx context.Context, d document, of owner) admission.Response {
	handler := admit.NewPodHandler(admit.Options{
		AgentImage: i.agentImage, Images: i.images, Owners: of, Kubernetes: i.minor,
		// The handler reads up to eight images of the pod at once, so one registryTimeout is
		// enough for most pods.
		Timeout: registryTimeout + time.Second,
	})
	return handler.Handle(ctx, request(d))
}

func (i *injector) minor() int { return i.kubernetes }

func request(d document) admission.Request {
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create,
		Kind:      metav1.GroupVersionKind{Kind: d.Kind},
		Namespace: cmp.Or(d.Namespace, metav1.NamespaceDefault),
		Name:      d.Name,
		Object:    runtime.RawExtension{Raw: d.raw},
	}}
}

var (
	errOffline       = errors.New("not asked, because of --offline (leave it out to ask the registry)")
	errNotInManifest = errors.New("not in the manifest")
)

// offline implements [image.Images] without reading any image.
type offline struct{}

// For implements [image.Images].
func (o offline) For(image.PullRights) image.Reader { return o }

// Command implements [image.Reader].
func (offline) Command(context.Context, string) (image.Command, error) {
	return image.Command{}, errOffline
}

// manifest implements [registry.Secrets] with the Secrets and ServiceAccounts of the
// manifest.
type manifest []document

var _ registry.Secrets = manifest(nil)

func (m manifest) find(kind, namespace, name string) (document, bool) {
	for _, d := range m {
		if d.APIVersion == "v1" && d.Kind == kind && d.Name == name && (d.Namespace == "" || d.Namespace == namespace) {
			return d, true
		}
	}
	return document{}, false
}

// PullSecrets implements [registry.Secrets].
func (m manifest) PullSecrets(_ context.Context, namespace, serviceAccount string) ([]string, error) {
	d, ok := m.find("ServiceAccount", namespace, serviceAccount)
	if !ok {
		return nil, nil
	}
	var account corev1.ServiceAccount
	if err := json.Unmarshal(d.raw, &account); err != nil {
		return nil, err
	}
	var names []string
	for _, reference := range account.ImagePullSecrets {
		names = append(names, reference.Name)
	}
	return names, nil
}

// Secret implements [registry.Secrets].
func (m manifest) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	d, ok := m.find("Secret", namespace, name)
	if !ok {
		return nil, errNotInManifest
	}
	secret := new(corev1.Secret)
	if err := json.Unmarshal(d.raw, secret); err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	for key, value := range secret.StringData {
		secret.Data[key] = []byte(value)
	}
	return secret, nil
}
