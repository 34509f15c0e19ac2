// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command admission prints the time of the webhook's pod handler, beside dapr's patcher
// and controller-runtime's usual way of patching. All three handlers get the same pods, in one
// execution of the command. The measured time runs from the bytes of an AdmissionReview to the
// bytes of its answer. One process handles one request at a time.
//
// The measured time includes neither TLS nor the log. Each handler also omits its one
// read from the API server. Our handler would read the pod's owner, and dapr's handler
// its Configuration.
//
// The command is a separate module, because no other program needs dapr's
// dependencies.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	rounds := flag.Int("rounds", 2000, "admissions of each pod by each handler")
	fresh := flag.Int("fresh-rounds", 300, "admissions of images that are not cached")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	if err := run(context.Background(), *rounds, *fresh); err != nil {
		fmt.Fprintln(os.Stderr, "admission:", err)
		os.Exit(1)
	}
}

// subject is one handler, which is called with one pod.
type subject struct {
	name    string
	handler http.Handler
	review  []byte
	// before is called ahead of each request. The duration of this call is not measured.
	before func()
	rounds int
	taken  []time.Duration
}

func run(ctx context.Context, rounds, fresh int) error {
	images, err := serve(ctx)
	if err != nil {
		return err
	}
	fmt.Println("Admission of a pod, in milliseconds: from an AdmissionReview's bytes to its answer's, in one process.")
	fmt.Println("\n| containers | implementation | rounds | p50 | p99 | max | allocations | KB allocated |\n|---|---|---|---|---|---|---|---|")
	for _, containers := range []int{1, 5, 20} {
		alone, asking, err := images.subjects(containers, rounds, fresh)
		if err != nil {
			return err
		}
		for _, subjects := range [][]*subject{alone, asking} {
			if err := measure(subjects); err != nil {
				return fmt.Errorf("%d containers: %w", containers, err)
			}
			for _, s := range subjects {
				s.print(containers)
			}
		}
	}
	return nil
}

func (s *subject) print(containers int) {
	count, bytes := s.allocations()
	slices.Sort(s.taken)
	fmt.Printf("| %d | %s | %d | %s | %s | %s | %d | %d |\n", containers, s.name, len(s.taken),
		ms(s.quantile(.5)), ms(s.quantile(.99)), ms(s.taken[len(s.taken)-1]), count, bytes/1000)
}

// measure calls one subject after the other in each round, so that other work of the
// machine affects all subjects equally.
func measure(subjects []*subject) error {
	for _, s := range subjects {
		if s.before != nil {
			s.before()
		}
		// This call is not measured. The call fills the caches, and its answer is checked.
		if err := check(s.ask()); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	runtime.GC()
	for again := true; again; {
		again = false
		for _, s := range subjects {
			if len(s.taken) == s.rounds {
				continue
			}
			again = true
			if s.before != nil {
				s.before()
			}
			began := time.Now()
			s.ask()
			s.taken = append(s.taken, time.Since(began))
		}
	}
	return nil
}

// allocationRounds is the number of calls after which the mean of their allocations is stable.
const allocationRounds = 100

// allocations returns the number and the bytes of one request's allocations.
func (s *subject) allocations() (count, bytes uint64) {
	var from, to runtime.MemStats
	for range allocationRounds {
		if s.before != nil {
			s.before()
		}
		runtime.ReadMemStats(&from)
		s.ask()
		runtime.ReadMemStats(&to)
		count += to.Mallocs - from.Mallocs
		bytes += to.TotalAlloc - from.TotalAlloc
	}
	return count / allocationRounds, bytes / allocationRounds
}

func (s *subject) quantile(q float64) time.Duration {
	return s.taken[min(int(q*float64(len(s.taken))), len(s.taken)-1)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }
