// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// metadataAlone asks for an object without its spec and status: read into memory
// with each write, all of a pod was most of the garbage of a handover.
const metadataAlone = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// Pod is what the API server answers to a patch.
type Pod struct {
	ResourceVersion string
	// Deleted: somebody has deleted it, and the kubelet is ending it.
	Deleted bool
}

// PatchPodStatus applies a strategic merge patch to a pod through its status
// subresource, where conditions are merged by their type. The API server takes
// labels and annotations there too. It returns the pod as it is then; a patch of
// nothing ({}) asks for that alone. One that names another resourceVersion is
// refused with [ErrConflict].
func (c *Client) PatchPodStatus(ctx context.Context, pod string, patch []byte) (Pod, error) {
	body, err := c.call(ctx, request{
		method:      http.MethodPatch,
		path:        c.corePath("pods") + "/" + url.PathEscape(pod) + "/status",
		contentType: "application/strategic-merge-patch+json",
		body:        patch,
		accept:      metadataAlone,
	})
	var answer struct {
		Metadata struct{ ResourceVersion, DeletionTimestamp string }
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err == nil && answer.Metadata.ResourceVersion == "" {
		err = fmt.Errorf("%w: no resourceVersion", ErrMalformed)
	}
	if err != nil {
		return Pod{}, fmt.Errorf("patch status of pod %s: %w", pod, err)
	}
	return Pod{answer.Metadata.ResourceVersion, answer.Metadata.DeletionTimestamp != ""}, nil
}

// EventType is how an [Event] looks to people.
type EventType string

const (
	Normal  EventType = "Normal"
	Warning EventType = "Warning"
)

// Event is a core/v1 Event on a pod of the client's namespace.
type Event struct {
	// PodName and PodUID name the pod. kubectl describe shows none without.
	PodName, PodUID string
	// Container is the one that it is about, if it is about one.
	Container string
	Type      EventType
	// Reason is CamelCase, Message a sentence.
	Reason, Message string
	// Time is when it happened.
	Time time.Time
}

// reporter names the agent in Events.
const reporter = "metaparticle-agent"

// maxEventMessage is what the API allows for an Event's note.
const maxEventMessage = 1024

// CreateEvent creates the Event. Its name is the server's choice.
func (c *Client) CreateEvent(ctx context.Context, event Event) error {
	body, err := json.Marshal(event.object(c.config.Namespace))
	if err != nil {
		return fmt.Errorf("create event %s: %w", event.Reason, err)
	}
	_, err = c.call(ctx, request{
		method: http.MethodPost, path: c.corePath("events"),
		contentType: "application/json", body: body,
	})
	if err != nil {
		return fmt.Errorf("create event %s: %w", event.Reason, err)
	}
	return nil
}

func (e Event) object(namespace string) map[string]any {
	at := e.Time.UTC().Format(time.RFC3339)
	object := map[string]any{
		"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": e.PodName, "uid": e.PodUID,
	}
	if e.Container != "" {
		object["fieldPath"] = "spec.containers{" + e.Container + "}"
	}
	return map[string]any{
		"apiVersion":     "v1",
		"kind":           "Event",
		"metadata":       map[string]any{"generateName": e.PodName + ".", "namespace": namespace},
		"involvedObject": object,
		"type":           e.Type,
		"reason":         e.Reason,
		"message":        cut(e.Message, maxEventMessage),
		// Without an eventTime the server asks for nothing more, and kubectl
		// sorts by these.
		"firstTimestamp":     at,
		"lastTimestamp":      at,
		"count":              1,
		"source":             map[string]any{"component": reporter},
		"reportingComponent": reporter,
		"reportingInstance":  e.PodName,
	}
}

func (c *Client) corePath(resource string) string {
	return "/api/v1/namespaces/" + url.PathEscape(c.config.Namespace) + "/" + resource
}
