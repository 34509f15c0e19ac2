// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/version"

	"github.com/metaparticle-io/metaparticle/mutate/feature"
)

const (
	// versionAgain is how often a version that is known is read anew: clusters
	// are upgraded a few times a year, and one that is newer than it is thought
	// to be only refuses too much for so long.
	versionAgain = 10 * time.Minute
	// versionRetry is the pause while it is not known, and some pods are
	// refused for that.
	versionRetry = 5 * time.Second
)

// server answers what version of Kubernetes it is.
type server interface {
	ServerVersion() (*version.Info, error)
}

// kubernetes knows the cluster's minor version, from a little after its start.
type kubernetes struct {
	server server
	log    *slog.Logger
	known  atomic.Int64
}

// minor implements [admit.Options.Kubernetes].
func (k *kubernetes) minor() int { return int(k.known.Load()) }

// NeedLeaderElection: every replica answers.
func (k *kubernetes) NeedLeaderElection() bool { return false }

// Start reads the version until the context ends. One that cannot be read any
// more is still the last that was.
func (k *kubernetes) Start(ctx context.Context) error {
	for {
		pause := versionAgain
		if err := k.read(); err != nil {
			k.log.Warn("read the cluster's version", "error", err)
			pause = versionRetry
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

func (k *kubernetes) read() error {
	info, err := k.server.ServerVersion()
	if err != nil {
		return err
	}
	n, err := feature.MinorVersion(info)
	if err != nil {
		return err
	}
	k.known.Store(int64(n))
	return nil
}
