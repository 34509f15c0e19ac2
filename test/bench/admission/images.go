// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	fake "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/image/registry"
	"github.com/metaparticle-io/metaparticle/mutate/load"
)

// most is the number of images: one for each container of the largest pod.
const most = 20

// images names the images in a registry on loopback, by tag and by digest.
type images struct {
	host    string
	digests []string
}

func serve(ctx context.Context) (*images, error) {
	server := httptest.NewServer(fake.New(fake.Logger(log.New(io.Discard, "", 0))))
	i := &images{host: strings.TrimPrefix(server.URL, "http://")}
	for n := range most {
		img, err := mutate.Config(empty.Image, v1.Config{
			Entrypoint: []string{"/usr/bin/tini", "--", fmt.Sprintf("/entrypoint-%d.sh", n)}, Cmd: []string{"serve"}, StopSignal: "SIGQUIT",
		})
		if err != nil {
			return nil, err
		}
		ref, err := name.ParseReference(i.tag(n))
		if err != nil {
			return nil, err
		}
		if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
			return nil, fmt.Errorf("push image: %w", err)
		}
		digest, err := img.Digest()
		if err != nil {
			return nil, err
		}
		i.digests = append(i.digests, ref.Context().Digest(digest.String()).String())
	}
	return i, nil
}

func (i *images) tag(n int) string    { return fmt.Sprintf("%s/shop/part-%d:v1", i.host, n) }
func (i *images) digest(n int) string { return i.digests[n] }

// subjects returns the subjects for pods with the given number of containers. The subjects in the
// first list send no request to the registry. The two lists are measured one after the other,
// because the registry's work in this process must not count for the first list.
func (i *images) subjects(containers, rounds, fresh int) (alone, asking []*subject, err error) {
	byDigest, err := reviewOf(pod(containers, i.digest))
	if err != nil {
		return nil, nil, err
	}
	byTag, err := reviewOf(pod(containers, i.tag))
	if err != nil {
		return nil, nil, err
	}
	cached, forgetful := ours(i.resolver()), ours(nil)
	alone = []*subject{
		{name: "this project, images by digest, cached", handler: cached.webhook, review: byDigest, rounds: rounds},
		{name: "dapr's patcher", handler: dapr{}, review: byDigest, rounds: rounds},
		{name: "controller-runtime's method: the typed pod is changed, marshalled and compared", handler: typed(), review: byDigest, rounds: rounds},
	}
	asking = []*subject{
		{name: "this project, images by tag, cached; the registry is asked for each tag's digest", handler: cached.webhook, review: byTag, rounds: fresh},
		{name: "this project, images by tag, not cached", handler: forgetful.webhook, review: byTag, rounds: fresh,
			before: func() { forgetful.images = i.resolver() }},
	}
	return alone, asking, nil
}

func (i *images) resolver() *registry.Resolver {
	return registry.New(registry.Options{PlainHTTP: []string{i.host}})
}

// handler is the webhook's pod handler. A benchmark can replace the handler's image resolver. The
// lookup of owners always returns the same owner.
type handler struct {
	webhook http.Handler
	images  *registry.Resolver
}

func ours(resolver *registry.Resolver) *handler {
	h := &handler{images: resolver}
	h.webhook = admit.Serve(admit.NewPodHandler(admit.Options{
		AgentImage: "registry.example.com/metaparticle/agent:v1", Images: h, Owners: owner{},
	}), new(load.Limit))
	return h
}

// For implements [image.Images].
func (h *handler) For(rights image.PullRights) image.Reader { return h.images.For(rights) }

// Known returns the command of an image named by digest, if the resolver remembers the command. The
// second result is false if the resolver does not remember the command.
func (h *handler) Known(image string) (image.Command, bool) { return h.images.Known(image) }

// owner names the same Deployment for every pod. The template of the Deployment is the pod's spec.
type owner struct{}

// JobUID implements [mutate.Owners].
func (owner) JobUID(context.Context, string, string) (string, error) { return "", nil }

// Origin implements [mutate.Owners].
func (owner) Origin(_ context.Context, _ string, pod *corev1.Pod) (feature.Origin, error) {
	return feature.Origin{Workload: api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}, Template: &pod.Spec}, nil
}
