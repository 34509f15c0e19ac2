// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// showPods prints a table of the pods, with the holder's token and the time of its
// acquiring write.
func (d *demo) showPods(ctx context.Context) error {
	text, err := d.podTable(ctx)
	fmt.Print(text)
	return err
}

func (d *demo) podTable(ctx context.Context) (string, error) {
	pods, err := d.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=redis"})
	if err != nil {
		return "", err
	}
	lease, err := d.client.CoordinationV1().Leases(namespace).Get(ctx, slot, metav1.GetOptions{})
	if err != nil && !errors.IsNotFound(err) {
		return "", err
	}
	return "\n" + table(pods.Items, lease), nil
}

// settled waits until all three pods are Ready and none is being deleted.
func (d *demo) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	pods := d.client.CoreV1().Pods(namespace)
	for {
		list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "app=redis"})
		if err != nil {
			return err
		}
		good := 0
		for _, pod := range list.Items {
			if pod.DeletionTimestamp == nil && ready(pod) == "True" {
				good++
			}
		}
		if good == 3 && len(list.Items) == 3 {
			return nil
		}
		changed, err := pods.Watch(ctx, metav1.ListOptions{LabelSelector: "app=redis", ResourceVersion: list.ResourceVersion})
		if err != nil {
			return fmt.Errorf("wait for three Ready pods: %w", err)
		}
		select {
		case <-changed.ResultChan():
			changed.Stop()
		case <-ctx.Done():
			changed.Stop()
			return fmt.Errorf("wait for three Ready pods: %w", ctx.Err())
		}
	}
}

func table(pods []corev1.Pod, lease *coordinationv1.Lease) string {
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "    POD\tNODE\tREADY\tROLE\tTOKEN\tSINCE")
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodRunning && pod.Status.Phase != corev1.PodPending {
			continue
		}
		role, token, since := "runs redis", "", ""
		if _, gated := pod.Labels[api.GatedLabel]; gated {
			role = "standby"
			if holds(lease, pod) {
				role, token, since = "HOLDER", lease.Annotations[api.TokenAnnotation], acquired(lease)
			}
		}
		if pod.DeletionTimestamp != nil {
			role += ", ends"
		}
		fmt.Fprintf(w, "    %s\t%s\t%v\t%s\t%s\t%s\n", pod.Name, pod.Spec.NodeName, ready(pod), role, token, since)
	}
	w.Flush()
	return text.String()
}

func holds(lease *coordinationv1.Lease, pod corev1.Pod) bool {
	return holder(lease) == api.Identity(pod.Name, string(pod.UID))
}

func holder(lease *coordinationv1.Lease) string {
	if lease == nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func acquired(lease *coordinationv1.Lease) string {
	if lease.Spec.AcquireTime == nil {
		return ""
	}
	return lease.Spec.AcquireTime.Local().Format(time.TimeOnly)
}

func ready(pod corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return string(c.Status)
		}
	}
	return "Unknown"
}
