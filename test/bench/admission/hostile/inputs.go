// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// kind has the calls of one attack on the webhook, and the attack's name in the printed table.
type kind struct {
	name  string
	calls [][]byte
}

// kinds returns all attacks on the webhook, each with the given number of calls.
func (r *registries) kinds(calls int) []kind {
	each := func(of func(i int) []byte) [][]byte {
		all := make([][]byte, calls)
		for i := range all {
			all[i] = of(i)
		}
		return all
	}
	same := func(call []byte) [][]byte { return each(func(int) []byte { return call }) }
	var names []string
	for i := range 20 {
		names = append(names, strings.Repeat("n", 100<<10)+fmt.Sprint(".example/app:", i))
	}
	images := func(containers int, image func(n int) string) string {
		all := make([]string, containers)
		for n := range all {
			all[n] = fmt.Sprintf(`{"name":"c%d","image":%q}`, n, image(n))
		}
		return strings.Join(all, ",")
	}
	return []kind{
		{"20 images with names of 100 KB", same(review("evil", "", images(20, func(n int) string { return names[n] })))},
		{"an annotation's key of 2.9 MB", same(review("evil", `,"metaparticle.io/`+strings.Repeat("a", 2900<<10)+`":"x"`, images(1, r.small)))},
		{"6,000 containers", same(review("evil", "", images(6000, func(n int) string { return fmt.Sprint("app:", n) })))},
		{"2 MB of empty containers", same(review("evil", "", strings.Repeat("{},", 700_000)+"{}"))},
		{"8 images with 600,000 words", each(func(i int) []byte {
			return review("evil", "", images(8, func(n int) string { return fmt.Sprintf("%s/words/%d-%d:1", r.host, i, n) }))
		})},
		{"8 images of 32 platforms of 1.9 MB", each(func(i int) []byte {
			return review("evil", "", images(8, func(n int) string { return fmt.Sprintf("%s/index/%d-%d:1", r.host, i, n) }))
		})},
		{"an image with a command of 60 KB", each(func(i int) []byte {
			return review("evil", "", images(1, func(int) string { return fmt.Sprintf("%s/unique/%d:1", r.host, i) }))
		})},
		{"8 images of registries that hang", each(func(i int) []byte {
			return review("evil", "", images(8, func(n int) string { return fmt.Sprintf("%s/app/%d:1", r.slowHost[(i+n)%slowHosts], i) }))
		})},
		{"8 images of registries that hang, from four namespaces", each(func(i int) []byte {
			return review(fmt.Sprint("evil-", i%4), "", images(8, func(n int) string { return fmt.Sprintf("%s/four/%d:1", r.slowHost[(i+n)%slowHosts], i) }))
		})},
	}
}

func (r *registries) small(n int) string { return fmt.Sprintf("%s/good/app%d:1", r.host, n) }

// ordinary returns the call for a pod whose image is named by tag. So the webhook sends a request
// to the registry for each call.
func (r *registries) ordinary(n int) []byte {
	return review("shop", "", fmt.Sprintf(`{"name":"app","image":%q}`, r.small(n)))
}

// review returns the AdmissionReview that the API server would send about a pod.
func review(namespace, annotations, containers string) []byte {
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"biller-5b8c9d7f4d-","namespace":"` + namespace +
		`","annotations":{"metaparticle.io/singleton":"true"` + annotations + `},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet",` +
		`"name":"biller-5b8c9d7f4d","uid":"4c1d5c0e","controller":true}]},"spec":{"containers":[` + containers + `]}}`
	text, err := json.Marshal(map[string]any{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": map[string]any{
			"uid": "705ab4f5", "kind": map[string]any{"version": "v1", "kind": "Pod"},
			"resource":  map[string]any{"version": "v1", "resource": "pods"},
			"namespace": namespace, "operation": "CREATE", "object": json.RawMessage(pod),
		},
	})
	if err != nil {
		panic(err) // this program wrote the texts, so they are valid JSON
	}
	return text
}
