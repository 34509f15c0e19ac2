// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
)

func TestCommandsWaitForPodsWithAHugeGrace(t *testing.T) {
	s := subject{pods: []corev1.Pod{{}, {}}}
	assert.Equal(t, 30*time.Second, s.stopsWithin())
	s.pods[1].Spec.TerminationGracePeriodSeconds = new(int64(math.MaxInt64))
	assert.Greater(t, s.stopsWithin(), 24*time.Hour)
}
