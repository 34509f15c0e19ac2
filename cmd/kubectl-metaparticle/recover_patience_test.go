// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
)

// passingErrors returns errors that say nothing about the object of the request.
func passingErrors() map[string]error {
	return map[string]error{
		"reset":        &url.Error{Op: "Patch", URL: "https://api", Err: &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}},
		"end":          io.EOF,
		"half":         io.ErrUnexpectedEOF,
		"dial":         &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded},
		"http2":        errors.New("http2: client connection lost"),
		"election":     apierrors.NewInternalError(errors.New("etcdserver: leader changed")),
		"unknown 500":  apierrors.NewGenericServerResponse(500, "patch", schema.GroupResource{}, "", "etcdserver: request timed out", 0, false),
		"proxy":        apierrors.NewGenericServerResponse(502, "patch", schema.GroupResource{}, "", "", 0, true),
		"busy":         apierrors.NewTooManyRequestsError("later"),
		"unrecognized": apierrors.NewUnauthorized("starting"),
	}
}

// failing makes the patches of an object fail for a time.
func (w *restored) failing(name string, failure error, lasts time.Duration) {
	first := sync.OnceValue(time.Now)
	w.meddle(name, func() error {
		if time.Since(first()) < lasts {
			return failure
		}
		return nil
	})
}

func TestRecoverCommandSucceedsDespiteTwentySecondsOfErrors(t *testing.T) {
	for name, failure := range passingErrors() {
		for _, of := range []string{"lock.b", "metaparticle-recover-3"} {
			t.Run(name+" of "+of, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.b", "b", nil))
					w.failing(of, failure, 20*time.Second)
					require.Equal(t, exitOK, w.recover(6000), w.err.String())
					assert.False(t, w.early, "no slot could be acquired under the floor")
					assert.Greater(t, w.tokens["lock.b"], uint64(6000))
					assert.Empty(t, w.err.String())
				})
			})
		}
	}
}

func TestRecoverCommandSucceedsDespiteFailedReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.a", "a", nil))
		lists := 0
		w.WithWatch = interceptor.NewClient(w.WithWatch, interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
				if lists++; lists > 2 && lists%3 == 0 {
					return syscall.ECONNRESET
				}
				return c.List(ctx, list, options...)
			},
		})
		require.Equal(t, exitOK, w.recover(6000), w.err.String())
		assert.Greater(t, lists, 5)
	})
}

func TestRecoverCommandInterruptedDuringWaitReturnsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		w := newRestored(t, 7000, slotLease("lock.a", "a", nil))
		w.deaf = "lock.a"
		time.AfterFunc(10*time.Second, interrupt)
		code := w.exitCode(t, func(std stdio, _ cluster) (int, error) {
			return recovering{cluster: cluster{WithWatch: w.WithWatch}, std: std, floor: 6000, timeout: time.Minute}.run(ctx)
		})
		assert.Equal(t, exitError, code)
		assert.Contains(t, w.err.String(), "error: wait for the holders: context canceled; tokens up to the floor may remain: repeat the command with --floor 6000\n")
	})
}

func TestLastingPauseErrorEndsTheRecoverCommand(t *testing.T) {
	for name, failure := range passingErrors() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.b", "b", nil))
				w.failing("lock.b", failure, time.Hour)
				assert.Equal(t, exitError, w.recover(6000))
				assert.Equal(t, uint64(5001), w.revision, "only the pause of lock.a is written")
				assert.Equal(t, "recover", w.lease(t, "lock.a").Annotations[api.PausedAnnotation])
				assert.Contains(t, w.err.String(), "error: pause all slots: patch lease lock.b in shop: no success for 25s: ")
				assert.Contains(t, w.err.String(), "slots may stay paused: repeat the command with --floor 6000\n")
				assert.NotContains(t, w.err.String(), "edit lease", "the Lease is not the cause")
			})
		})
	}
}

func TestRecoverCommandKeepsPausesIfWritesKeepFailing(t *testing.T) {
	for name, failure := range passingErrors() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.b", "b", nil))
				for i := range recoverWriters {
					w.failing(scratch(i).Name, failure, 40*time.Second)
				}
				assert.Equal(t, exitError, w.recover(6000))
				for _, slot := range []string{"lock.a", "lock.b"} {
					assert.Equal(t, "recover", w.lease(t, slot).Annotations[api.PausedAnnotation], slot)
				}
				assert.Contains(t, w.err.String(), "error: raise the revision: no success for 25s: ")
				assert.Contains(t, w.err.String(), "slots may stay paused: repeat the command with --floor 6000\n")
				assert.Equal(t, exitOK, w.recover(6000), "a repetition completes the recovery: %s", w.err)
				assert.False(t, w.early, "no slot could be acquired under the floor")
				assert.NotContains(t, w.lease(t, "lock.a").Annotations, api.PausedAnnotation)
			})
		})
	}
}

func TestRecoverCommandFailsIfPausesCannotBeEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pauses := map[string]string{api.PausedAnnotation: string(api.PauseRecover)}
		w := newRestored(t, 7000, slotLease("lock.a", "a", pauses), slotLease("lock.b", "b", pauses))
		w.failing("lock.b", syscall.ECONNRESET, time.Hour)
		assert.Equal(t, exitError, w.recover(6000))
		assert.NotContains(t, w.lease(t, "lock.a").Annotations, api.PausedAnnotation)
		assert.Contains(t, w.err.String(), "error: end the pauses: patch lease lock.b in shop: no success for 25s: ")
		assert.NotContains(t, w.out.String(), "holders are asked to yield", "the step is not complete")
	})
}

func TestRecoverCommandEndsSoonWithoutTheAPIServer(t *testing.T) {
	for name, answers := range map[string]time.Duration{"refused": 0, "lost": 30 * time.Second, "silent": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var there []client.Object
				for i := range 100 {
					there = append(there, slotLease(fmt.Sprint("lock.", i), "a", nil))
				}
				w := newRestored(t, 5000, there...)
				w.WithWatch = interceptor.NewClient(w.WithWatch, interceptor.Funcs{
					Patch: func(ctx context.Context, _ client.WithWatch, _ client.Object, _ client.Patch, _ ...client.PatchOption) error {
						select {
						case <-time.After(answers):
							return syscall.ECONNREFUSED
						case <-ctx.Done():
							return ctx.Err()
						}
					},
				})
				began := time.Now()
				assert.Equal(t, exitError, w.recover(6000))
				assert.LessOrEqual(t, time.Since(began), patience)
				assert.Equal(t, uint64(5000), w.revision)
				assert.Contains(t, w.err.String(), "repeat the command with --floor 6000\n")
			})
		})
	}
}

func TestRecoverCommandFailsIfInterruptedWhileEndingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		pauses := map[string]string{api.PausedAnnotation: string(api.PauseRecover)}
		w := newRestored(t, 7000, slotLease("lock.a", "a", pauses), slotLease("lock.b", "b", pauses))
		w.meddle("lock.a", func() error { interrupt(); return nil })
		code := w.exitCode(t, func(std stdio, _ cluster) (int, error) {
			return recovering{cluster: cluster{WithWatch: w.WithWatch}, std: std, floor: 6000, timeout: time.Minute}.run(ctx)
		})
		assert.Equal(t, exitError, code)
		assert.Equal(t, "recover", w.lease(t, "lock.b").Annotations[api.PausedAnnotation])
		assert.NotContains(t, w.out.String(), "holders are asked to yield")
		assert.Equal(t, "error: end the pauses: context canceled; slots may stay paused: repeat the command with --floor 6000\n", w.err.String())
	})
}

// The Lease lock.free gets no pause, so a pod could acquire this slot during the writes.
func TestRecoverCommandFailsIfASlotStaysUnpaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.free", "", nil))
		w.meddle("lock.free", full)
		assert.Equal(t, exitError, w.recover(6000))
		assert.Greater(t, w.tokens["lock.a"], uint64(6000))
		assert.Contains(t, w.err.String(), "error: 1 slots had no pause during the writes, so tokens of these slots can repeat: "+
			"apply the remedies, and repeat the command with --floor 6000\n")
	})
}
