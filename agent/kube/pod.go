// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// metadataAlone requests an object without its spec and status. If an agent read whole pods,
// they would be most of the memory that it allocates in a handover.
const metadataAlone = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// Pod is the part of a pod that the agent needs, from the API server's answer to a patch.
type Pod struct {
	ResourceVersion string
	// Deleted reports that a person or a controller has deleted the pod, so the kubelet is
	// stopping it.
	Deleted bool
	// GraceLeft is the rest of a deleted pod's grace at the instant in the answer's Date
	// header. The API server's clock gives that instant, in whole seconds. GraceLeft is zero if
	// the answer has no deletionTimestamp, or no Date header.
	GraceLeft time.Duration
	// DeletionCost is the value of the pod's annotation pod-deletion-cost; empty without that
	// annotation.
	DeletionCost string
}

// PatchPodStatus applies a strategic merge patch to a pod through its status subresource. The
// API server merges conditions by their type, and also accepts labels and annotations in the
// same patch. PatchPodStatus returns the pod after the patch; the empty patch ({}) changes
// nothing. If the patch names another resourceVersion than the pod has, the API server refuses
// the patch with [ErrConflict].
func (c *Client) PatchPodStatus(ctx context.Context, pod string, patch []byte) (Pod, error) {
	answer, err := c.patchPod(ctx, pod, "application/strategic-merge-patch+json", patch)
	if err != nil {
		return Pod{}, fmt.Errorf("patch status of pod %s: %w", pod, err)
	}
	return answer, nil
}

// patchPod sends a patch of the given content type through the pod's status subresource.
func (c *Client) patchPod(ctx context.Context, pod, contentType string, patch []byte) (Pod, error) {
	response, err := c.send(ctx, request{
		method:      http.MethodPatch,
		path:        c.corePath("pods") + "/" + url.PathEscape(pod) + "/status",
		contentType: contentType,
		body:        patch,
		accept:      metadataAlone,
	})
	if err != nil {
		return Pod{}, err
	}
	defer response.Body.Close()
	var answer podAnswer
	body, err := readBounded(response.Body)
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err == nil && answer.Metadata.ResourceVersion == "" {
		err = fmt.Errorf("%w: no resourceVersion", ErrMalformed)
	}
	if err != nil {
		return Pod{}, err
	}
	return Pod{
		ResourceVersion: answer.Metadata.ResourceVersion,
		Deleted:         answer.Metadata.DeletionTimestamp != "",
		GraceLeft:       answer.graceLeft(response.Header.Get("Date")),
		DeletionCost:    answer.Metadata.Annotations.DeletionCost,
	}, nil
}

// removesDeletion is a JSON patch (RFC 6902) that changes no pod. A pod that is not being deleted has
// no deletionTimestamp, so the API server refuses the patch with the status 422. For all other pods
// the API server keeps the deletionTimestamp, which no request can remove, and returns the pod.
const removesDeletion = `[{"op":"remove","path":"/metadata/deletionTimestamp"}]`

// notApplicable is the API server's message if a JSON patch does not fit the object. A policy or a
// webhook that refuses a patch has another message.
const notApplicable = "the server rejected our request due to an error in our request"

// ReadDeletion reads whether the pod is being deleted. The other fields of the result are zero
// unless the pod is being deleted. The agent has no right to read pods, so ReadDeletion sends a
// patch that changes nothing. If the pod is not being deleted, the API server refuses this patch
// before the admission. So the refusal costs the API server less than an empty patch.
func (c *Client) ReadDeletion(ctx context.Context, pod string) (Pod, error) {
	answer, err := c.patchPod(ctx, pod, "application/json-patch+json", []byte(removesDeletion))
	if status, ok := errors.AsType[*StatusError](err); ok && status.Code == http.StatusUnprocessableEntity && status.Message == notApplicable {
		return Pod{}, nil
	}
	if err != nil {
		return Pod{}, fmt.Errorf("read the deletion of pod %s: %w", pod, err)
	}
	return answer, nil
}

// podAnswer has the part of a pod that this package reads.
type podAnswer struct {
	Metadata struct {
		ResourceVersion string
		// DeletionTimestamp is the instant at which the grace is over.
		DeletionTimestamp          string
		DeletionGracePeriodSeconds int64
		Annotations                struct {
			DeletionCost string `json:"controller.kubernetes.io/pod-deletion-cost"` // api.DeletionCostAnnotation
		}
	}
}

// graceLeft returns the rest of the pod's grace at the date of the answer. The end of the grace
// may come from another API server than the date, and one of their clocks may be wrong. So
// graceLeft never returns more than the whole grace.
func (a *podAnswer) graceLeft(date string) time.Duration {
	end, err := time.Parse(time.RFC3339, a.Metadata.DeletionTimestamp)
	now, dateErr := http.ParseTime(date)
	if err != nil || dateErr != nil {
		return 0
	}
	whole := time.Duration(a.Metadata.DeletionGracePeriodSeconds) * time.Second
	return max(0, min(end.Sub(now), whole))
}

// EventType is the type that kubectl shows for an [Event].
type EventType string

const (
	Normal  EventType = "Normal"
	Warning EventType = "Warning"
)

// Event is a core/v1 Event on a pod of the client's namespace.
type Event struct {
	// PodName and PodUID identify the pod. Without the uid, kubectl describe does
	// not show the Event.
	PodName, PodUID string
	// Container is the container that the Event is about, if any.
	Container string
	Type      EventType
	// Reason is a name in CamelCase. Message is a sentence.
	Reason, Message string
	// Time is the instant at which the event happened.
	Time time.Time
}

// maxEventMessage is the largest number of characters in an Event's message. The policy on Events
// admits no longer message.
const maxEventMessage = 1024

// CreateEvent creates the Event, under a name that the API server generates.
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
		"message":        leading(e.Message, maxEventMessage),
		// The Event has no eventTime. With an eventTime, the API server would also require the
		// field "action". Kubectl sorts Events by the two timestamps below.
		"firstTimestamp":     at,
		"lastTimestamp":      at,
		"count":              1,
		"source":             map[string]any{"component": api.AgentReporter},
		"reportingComponent": api.AgentReporter,
		"reportingInstance":  e.PodName,
	}
}

// leading returns the text, or its first characters.
func leading(text string, characters int) string {
	for i := range text {
		if characters == 0 {
			return text[:i]
		}
		characters--
	}
	return text
}

func (c *Client) corePath(resource string) string {
	return "/api/v1/namespaces/" + url.PathEscape(c.config.Namespace) + "/" + resource
}
