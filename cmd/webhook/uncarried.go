// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
)

// maxRead bounds the workloads of a namespace that one call reads from the API server. Each read takes some
// milliseconds, and a person waits for the answer.
const maxRead = 20

// maxSearched bounds the workloads of one kind, and of one namespace, that a call looks at in the cache.
const maxSearched = 5000

// uncarried finds workloads that claim, and whose pod templates lack the claim. The cache has the
// annotations of the workloads, and not their templates. So only those that claim are read.
type uncarried struct {
	cached client.Reader
	live   objects
}

// in implements [admit.Options.Uncarried] for one namespace.
func (u uncarried) in(ctx context.Context, namespace string) (found admit.Uncarried, err error) {
	read := 0
	for _, kind := range watched {
		var list metav1.PartialObjectMetadataList
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		if err := u.cached.List(ctx, &list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy, client.Limit(maxSearched)); err != nil {
			return found, err
		}
		for _, w := range list.Items {
			if !api.Asks(w.Annotations) {
				continue
			}
			if read++; read > maxRead || err != nil {
				found.Unread++
				continue
			}
			var lacks bool
			if lacks, err = u.lacks(ctx, kind, namespace, w.Name); lacks {
				found.Workloads = append(found.Workloads, api.Workload{Group: kind.Group, Kind: kind.Kind, Name: w.Name})
			}
			if err != nil {
				found.Unread++
			}
		}
	}
	return found, err
}

// lacks reports whether the pod template of a workload asks for no gate. A workload that is gone lacks nothing.
func (u uncarried) lacks(ctx context.Context, kind schema.GroupVersionKind, namespace, name string) (bool, error) {
	type template struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	var w struct {
		Spec struct {
			Template    template `json:"template"`
			JobTemplate struct {
				Spec struct {
					Template template `json:"template"`
				} `json:"spec"`
			} `json:"jobTemplate"`
		} `json:"spec"`
	}
	if err := u.live.read(ctx, kind, namespace, name, &w); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	annotations := w.Spec.Template.Metadata.Annotations
	if kind.Kind == "CronJob" {
		annotations = w.Spec.JobTemplate.Spec.Template.Metadata.Annotations
	}
	return !api.Asks(annotations), nil
}
