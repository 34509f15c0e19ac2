// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// podObject has what enroll reads in the object of a [Tenant].
type podObject struct {
	// gated is the value of the label by which enroll selects pods.
	gated string
	// slots is the annotation with the claims, and "duration" the lease duration. A pod without
	// claims has neither.
	slots    string
	duration time.Duration
	// job is the name and the UID of the pod's Job; empty for other pods.
	job string
	// init is the injected init container.
	init map[string]any
}

// withLocal returns the object of a pod whose agent serves the local API. The run is the Job of the
// pod, if the pod has one.
func withLocal(claims []api.Claim, run string, duration time.Duration) podObject {
	args := api.DefaultLocalArgs()
	args.Claims, args.Run, args.LeaseDuration = claims, run, duration
	return podObject{
		gated: api.Gated, slots: marks(claims), duration: duration, job: run,
		init: map[string]any{"name": api.AgentContainer, "restartPolicy": "Always", "args": args.Args()},
	}
}

// storePod stores the object of a pod in the API server, for enroll.
func storePod(to *apiserver.Server, name, node string, o podObject) {
	meta := map[string]any{"name": name, "namespace": Namespace, "labels": map[string]any{api.GatedLabel: o.gated}}
	if o.slots != "" {
		meta["annotations"] = map[string]any{api.SlotsAnnotation: o.slots, api.LeaseDurationAnnotation: o.duration.String()}
	}
	if o.job != "" {
		meta["ownerReferences"] = []any{map[string]any{
			"apiVersion": "batch/v1", "kind": "Job", "name": o.job, "uid": o.job, "controller": true,
		}}
	}
	_, err := to.Create("kubelet", "Pod", name, apiserver.Encode(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": meta,
		"spec":   map[string]any{"serviceAccountName": account, "nodeName": node, "initContainers": []any{o.init}},
		"status": map[string]any{"phase": "Pending"},
	}))
	engine.Must(err)
}

// arrivals returns the claim by which a program waits at the barrier through the local API.
func arrivals(at api.Barrier) []api.Claim {
	return []api.Claim{{Kind: api.Arrivals, Name: at.Name, Size: at.Size}}
}

// marks returns the annotation that the webhook writes for the claims of the local API.
func marks(claims []api.Claim) string {
	return strings.Join(api.Request{Claimed: claims}.Marks(api.Workload{}), ",")
}
