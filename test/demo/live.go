// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// live redraws the table of pods in place with each change of a pod or of the Lease,
// until the caller calls the returned function. Without a terminal the method draws
// nothing, because the caller prints the first and the last table.
func (d *demo) live(ctx context.Context) (stop func(), err error) {
	if !terminal(os.Stdout) {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	pods, err := d.client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{LabelSelector: "app=redis"})
	if err != nil {
		cancel()
		return nil, err
	}
	leases, err := d.client.CoordinationV1().Leases(namespace).Watch(ctx,
		metav1.ListOptions{FieldSelector: "metadata.name=" + slot})
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.redraw(ctx, pods, leases)
	}()
	return func() { cancel(); <-done }, nil
}

func (d *demo) redraw(ctx context.Context, pods, leases watch.Interface) {
	drawn := 0
	for {
		text, err := d.podTable(ctx)
		if err != nil {
			return // the demo's next request reports the error
		}
		if drawn > 0 {
			fmt.Printf("\033[%dA\033[J", drawn)
		}
		fmt.Print(text)
		drawn = strings.Count(text, "\n")
		select {
		case <-pods.ResultChan():
		case <-leases.ResultChan():
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			fmt.Printf("\033[%dA\033[J", drawn)
			return
		}
	}
}

func terminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
