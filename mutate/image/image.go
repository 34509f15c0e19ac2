// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package image declares the look-up of the command that a container runtime would run for
// an image. Package registry implements the look-up.
package image

import (
	"context"
	"errors"
)

// Images makes a [Reader] for each pod.
type Images interface {
	// For returns a Reader with the rights of one pod: the pull secrets of the pod and of its
	// service account. The Reader reads each pull secret at most once.
	For(rights PullRights) Reader
}

// Reader reads images with the rights of one pod. Its method may be called concurrently.
type Reader interface {
	// Command reads the command of an image within a bounded time. The error is
	// ErrPlatforms if the command depends on more than the architecture. The text of an error
	// contains no word of a registry's answer, because the pod's author sees this text.
	Command(ctx context.Context, image string) (Command, error)
}

// PullRights names the namespace, the service account and the pull secrets of a pod.
type PullRights struct {
	Namespace      string
	ServiceAccount string
	// Secrets are the pull secrets that the pod names.
	Secrets []string
}

// Command is the command of an image.
type Command struct {
	Entrypoint []string
	Cmd        []string
	// StopSignal is the signal as the image writes it ("SIGQUIT", "3"), or empty.
	StopSignal string
	// Platforms has a command for each architecture, if the commands differ. Then all other
	// fields are empty.
	Platforms map[string]Command
}

// ErrPlatforms reports an image whose platforms of one architecture run different
// commands. The shim cannot find out which of these platforms the container runtime has
// chosen.
var ErrPlatforms = errors.New("the image's platforms of one architecture run different commands")
