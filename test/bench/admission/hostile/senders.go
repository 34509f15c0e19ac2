// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
)

const (
	// patience is the timeoutSeconds of the webhook's configuration.
	patience = 10 * time.Second
	// again is the Retry-After of an answer with status 429.
	again = time.Second
	// between is the time between two ordinary pods of a sender.
	between = 20 * time.Millisecond
)

// senders send calls to the replicas as API servers do.
type senders struct {
	replicas   []*process
	registries *registries
	good       int
}

// tally counts the answers of one wave. The field "taken" has the duration of the call for each
// admitted ordinary pod.
type tally struct {
	mu      sync.Mutex
	answers map[string]int
	taken   []time.Duration
	failed  map[string]int
}

func (t *tally) hostile(answer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answers[answer]++
}

func (t *tally) ordinary(answer string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if answer != admitted {
		t.failed[answer]++
		return
	}
	t.taken = append(t.taken, took)
}

// wave sends all hostile calls at the same time, and ordinary calls until the hostile calls are
// answered. A wave lasts for the time "least" or longer, even without hostile calls. At the end of
// the wave the function prints a row of the table.
func (s *senders) wave(ctx context.Context, name string, calls [][]byte, least time.Duration) error {
	t := &tally{answers: map[string]int{}, failed: map[string]int{}}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	began := time.Now()
	ended, end := context.WithCancel(ctx)
	defer end()
	var ordinary, hostile sync.WaitGroup
	for g := range s.good {
		ordinary.Go(func() { s.ordinary(ended, client, g, t) })
	}
	for i, call := range calls {
		hostile.Go(func() { t.hostile(s.insist(ctx, client, i, call)) })
	}
	hostile.Wait()
	if wait := least - time.Since(began); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	took := time.Since(began)
	end()
	ordinary.Wait()
	slices.Sort(t.taken)
	var peaks []string
	for _, r := range s.replicas {
		peak, err := r.peak()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		peaks = append(peaks, fmt.Sprint(peak>>20))
	}
	failed := summary(t.failed)
	if failed == "" {
		failed = "0"
	}
	fmt.Printf("| %s | %s | %.1f | %d | %s | %s | %s | %s | %s |\n", name, summary(t.answers), took.Seconds(), len(t.taken), failed,
		quantile(t.taken, .5), quantile(t.taken, .99), quantile(t.taken, 1), strings.Join(peaks, ", "))
	return ctx.Err()
}

// ordinary sends one ordinary pod after the other until the method "wave" ends ctx.
func (s *senders) ordinary(ctx context.Context, client *http.Client, g int, t *tally) {
	ticker := time.NewTicker(between)
	defer ticker.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		call := s.registries.ordinary(g*10 + n%10)
		began := time.Now()
		// If ctx ends during this call, the call still waits for its answer.
		t.ordinary(s.insist(context.WithoutCancel(ctx), client, g+n, call), time.Since(began))
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

const (
	admitted = "admitted"
	busy     = "turned away"
)

// insist sends a call as the API server does. After status 429 the function waits for a
// second and sends the call again, for 10 s at most (the constant "patience").
func (s *senders) insist(ctx context.Context, client *http.Client, n int, call []byte) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		answer := s.call(ctx, client, n, call)
		if answer != busy {
			return answer
		}
		n++ // a Service would send the next connection to another replica
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return busy
		}
	}
}

func (s *senders) call(ctx context.Context, client *http.Client, n int, call []byte) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.replicas[n%len(s.replicas)].address, bytes.NewReader(call))
	if err != nil {
		return err.Error()
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return "no answer in 10 s"
		}
		return "cut off"
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusTooManyRequests:
		return busy
	default:
		return fmt.Sprint("status ", response.StatusCode)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "cut off"
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil || review.Response == nil {
		return "no review"
	}
	if review.Response.Allowed {
		return admitted
	}
	reason, _, _ := strings.Cut(review.Response.Result.Message, ":")
	if len(reason) > 30 {
		reason = "refused"
	}
	return reason
}
