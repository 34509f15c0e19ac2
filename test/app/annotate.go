// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
)

// annotate serves a foreign webhook, with the certificate in dir. At / the webhook adds a
// claim to every pod. At /inject the webhook adds a container to every pod, and an
// environment variable to each container of the pod. At /mirror the webhook rewrites each image to a mirror's
// repository of the same digest, and states a processor request for each container without one.
func annotate(listen, dir string) error {
	mux := http.NewServeMux()
	mux.Handle("/", webhook(func(json.RawMessage) ([]operation, error) {
		return []operation{{"add", "/metadata/annotations", map[string]string{"metaparticle.io/singleton": "true"}}}, nil
	}))
	mux.Handle("/inject", webhook(inject))
	mux.Handle("/mirror", webhook(mirror))
	return http.ListenAndServeTLS(listen, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), mux)
}

// operation is one operation of a JSON Patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func webhook(mutate func(pod json.RawMessage) ([]operation, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID    string          `json:"uid"`
				Object json.RawMessage `json:"object"`
			} `json:"request"`
		}
		err := json.NewDecoder(r.Body).Decode(&review)
		var patch []byte
		if err == nil {
			var operations []operation
			if operations, err = mutate(review.Request.Object); err == nil {
				patch, err = json.Marshal(operations)
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
			"response": map[string]any{
				"uid": review.Request.UID, "allowed": true, "patchType": "JSONPatch", "patch": patch,
			},
		})
	}
}

// The operations of inject add a container and an environment variable with these names.
const (
	injectedContainer = "proxy"
	injectedVariable  = "INJECTED"
)

// inject returns the operations that add the container and the environment variables to a pod. The
// API server may call a webhook twice for one pod, so a second call adds nothing.
func inject(raw json.RawMessage) ([]operation, error) {
	type container struct {
		Name  string `json:"name"`
		Image string `json:"image"`
		Env   []struct {
			Name string `json:"name"`
		} `json:"env"`
	}
	var pod struct {
		Spec struct {
			Containers     []container `json:"containers"`
			InitContainers []container `json:"initContainers"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, err
	}
	all := []operation{}
	variable := map[string]string{"name": injectedVariable, "value": "1"}
	there := false
	for list, containers := range map[string][]container{"containers": pod.Spec.Containers, "initContainers": pod.Spec.InitContainers} {
		for i, c := range containers {
			there = there || c.Name == injectedContainer
			at, has := fmt.Sprintf("/spec/%s/%d/env", list, i), false
			for _, v := range c.Env {
				has = has || v.Name == injectedVariable
			}
			switch {
			case has:
			case len(c.Env) == 0:
				all = append(all, operation{"add", at, []any{variable}})
			default:
				all = append(all, operation{"add", at + "/-", variable})
			}
		}
	}
	if !there {
		all = append(all, operation{"add", "/spec/containers/-", map[string]any{
			"name": injectedContainer, "image": pod.Spec.Containers[0].Image, "args": []string{"-listen=:9090"}, "env": []any{variable},
		}})
	}
	return all, nil
}

// mirror returns the operations that rewrite the images of a pod, and complete the containers' requests.
func mirror(raw json.RawMessage) ([]operation, error) {
	type container struct {
		Image     string `json:"image"`
		Resources struct {
			Requests map[string]any `json:"requests"`
		} `json:"resources"`
	}
	var pod struct {
		Spec map[string]json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, err
	}
	all := []operation{}
	for _, list := range []string{"containers", "initContainers"} {
		var containers []container
		if pod.Spec[list] == nil {
			continue
		}
		if err := json.Unmarshal(pod.Spec[list], &containers); err != nil {
			return nil, err
		}
		for i, c := range containers {
			at := fmt.Sprintf("/spec/%s/%d/", list, i)
			if host, rest, ok := strings.Cut(c.Image, "/"); ok && !strings.HasPrefix(rest, "mirror/") {
				all = append(all, operation{"add", at + "image", host + "/mirror/" + rest})
			}
			if c.Resources.Requests["cpu"] == nil {
				all = append(all, operation{"add", at + "resources", map[string]any{"requests": map[string]string{"cpu": "7m"}}})
			}
		}
	}
	return all, nil
}
