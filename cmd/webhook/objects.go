// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/load"
)

const (
	// maxObject bounds the JSON text of an owner. The API server admits requests of 3 MB, and adds
	// managed fields and default values to an object.
	maxObject = 4 << 20
	// maxAccess bounds the JSON text of a service account or a pull secret, and of an owner that gets
	// an Event. These reads belong to no call's share of the load. A usable pull secret has at most
	// 128 KiB, and may have the same content again in an annotation of kubectl.
	maxAccess = 512 << 10
	// maxContainers bounds the containers that the webhook reads of a template. A pod that claims has
	// at most 100 containers.
	maxContainers = 100
	// maxPullSecrets bounds the pull secrets that the webhook reads of a service account. Package
	// registry uses at most 32, and reports a further one.
	maxPullSecrets = 33
)

// errHuge reports an object that is longer than the webhook reads.
var errHuge = errors.New("the object is too large for the webhook")

// objects reads objects from the API server.
type objects interface {
	// read decodes the JSON text of an object into a struct. The struct has only the fields that the
	// caller needs, because any user may write long lists into other fields.
	read(ctx context.Context, kind schema.GroupVersionKind, namespace, name string, into any) error
}

// live implements [objects] with one GET for each object.
type live struct {
	client rest.Interface
	// max bounds the text of an object.
	max int64
}

// newClient returns a client for the paths of all API groups.
func newClient(config *rest.Config, client *http.Client) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.NegotiatedSerializer = clientgoscheme.Codecs.WithoutConversion()
	return rest.UnversionedRESTClientForConfigAndClient(config, client)
}

// read implements [objects]. The text of the object counts as a part of the call's share of the load.
func (l live) read(ctx context.Context, kind schema.GroupVersionKind, namespace, name string, into any) error {
	path := "/apis/" + kind.GroupVersion().String()
	if kind.Group == "" {
		path = "/api/" + kind.Version
	}
	accept := "application/json"
	if _, ok := into.(*identity); ok {
		accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	}
	// Each kind that the webhook reads has a plural with a plain "s".
	body, err := l.client.Get().AbsPath(path).Namespace(namespace).Resource(strings.ToLower(kind.Kind)+"s").Name(name).
		SetHeader("Accept", accept).Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	// In a buffer that doubles, less garbage remains than with [io.ReadAll].
	var text bytes.Buffer
	if _, err := text.ReadFrom(load.MeterObject(ctx, io.LimitReader(body, l.max+1))); err != nil {
		return err
	}
	if int64(text.Len()) > l.max {
		return fmt.Errorf("%w: its JSON text has more than %d KiB", errHuge, l.max>>10)
	}
	return json.Unmarshal(text.Bytes(), into)
}

// identity has those fields of an owner that tell which object it is.
type identity struct {
	Metadata struct {
		UID             types.UID               `json:"uid"`
		GenerateName    string                  `json:"generateName"`
		Labels          map[string]string       `json:"labels"`
		Annotations     map[string]string       `json:"annotations"`
		OwnerReferences []metav1.OwnerReference `json:"ownerReferences"`
	} `json:"metadata"`
}

// controller returns the reference to the owner's own controller, or nil.
func (i *identity) controller() *metav1.OwnerReference {
	return metav1.GetControllerOf(&metav1.ObjectMeta{OwnerReferences: i.Metadata.OwnerReferences})
}

// above returns the reference to the workload above an owner of the kind, or nil.
func (i *identity) above(kind string) *metav1.OwnerReference {
	return podspec.Above(kind, &metav1.ObjectMeta{Labels: i.Metadata.Labels, OwnerReferences: i.Metadata.OwnerReferences})
}

// aboveDeployment returns the result of above if the kind is Deployment, and nil otherwise.
func (i *identity) aboveDeployment(kind schema.GroupVersionKind) *metav1.OwnerReference {
	if kind.Kind != "Deployment" {
		return nil
	}
	return i.above(kind.Kind)
}

// apart returns the reason of [feature.Apart] for an owner with nothing above it.
func (i *identity) apart(kind, name string) string {
	return feature.Apart(kind, metav1.ObjectMeta{Name: name, GenerateName: i.Metadata.GenerateName, Annotations: i.Metadata.Annotations})
}

// uid returns the UID of the owner.
func (i *identity) uid() types.UID { return i.Metadata.UID }

// podTemplate has the fields that the webhook reads of a pod template. The decoder skips the elements for
// which an array has no room.
type podTemplate struct {
	Spec struct {
		Containers [maxContainers + 1]*entry `json:"containers"`
	} `json:"spec"`
}

// entry is the element of a list. Only the name matters.
type entry struct {
	Name string `json:"name"`
}

// names returns the names of the first entries of a list.
func names(list []*entry) []string {
	var all []string
	for _, e := range list {
		if e == nil {
			break
		}
		all = append(all, e.Name)
	}
	return all
}

// podSpec returns a spec with the names of the template's containers. The result is nil for a template
// of more containers than a pod that claims may have.
func (t *podTemplate) podSpec() *corev1.PodSpec {
	all := names(t.Spec.Containers[:])
	if len(all) > maxContainers {
		return nil
	}
	spec := &corev1.PodSpec{Containers: make([]corev1.Container, len(all))}
	for i, name := range all {
		spec.Containers[i].Name = name
	}
	return spec
}
