// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestAnswerThatNoProgramReadsEndsInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		to, _ := piped(t)
		began := time.Now()
		reply(to, http.StatusCreated, holding{})
		assert.False(t, to.end())
		assert.LessOrEqual(t, time.Since(began), lineTimeout)
	})
}
