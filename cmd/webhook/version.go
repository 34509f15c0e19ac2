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
	// versionAgain is the wait after a successful read. People upgrade a cluster a few
	// times a year. Until the next read after an upgrade, the webhook refuses more pods
	// than it must.
	versionAgain = 10 * time.Minute
	// versionRetry is the wait after a failed read. While the version is unknown, the
	// webhook refuses some pods.
	versionRetry = 5 * time.Second
)

// server returns the version of Kubernetes.
type server interface {
	ServerVersion() (*version.Info, error)
}

// kubernetes reads the cluster's minor version, at the start and from time to time.
type kubernetes struct {
	server server
	log    *slog.Logger
	known  atomic.Int64
}

// minor implements [admit.Options.Kubernetes].
func (k *kubernetes) minor() int { return int(k.known.Load()) }

// NeedLeaderElection returns false, because every replica needs the version.
func (k *kubernetes) NeedLeaderElection() bool { return false }

// Start reads the version again and again, until the context ends. A failed read leaves the
// last version in place.
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
