// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"strings"
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

// Package url drops the malformed parts of a query. Without its fence, a write would take effect.
func TestCallWithAnAmbiguousQueryIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer("lock.a"), "first", "lock/a,variable/hits")
		number := p.hold("?heartbeat=5m")
		for _, call := range [][2]string{
			{http.MethodPut, hits + "?type=text;fence=" + number},
			{http.MethodPut, hits + "?fence=%zz" + number},
			{http.MethodPut, hits + "?fence=" + number + "&fence=0"},
			{http.MethodPost, hits + "/add?by=1&by=2"},
			{http.MethodPost, hits + "/add?by="},
			{http.MethodPost, hits + "/add?by=%31%"},
			{http.MethodPost, "/v1/lock/a/holds?wait=1s&wait=2s"},
			{http.MethodPost, "/v1/lock/a/holds?wait=1s;stream=true"},
			{http.MethodPost, "/v1/holds?claims=lock/a&claims=lock/b"},
		} {
			code, body := p.send(call[0], call[1], "1")
			assert.Equal(t, http.StatusBadRequest, code, call)
			assert.Equal(t, "BadRequest", body["reason"], call)
		}
		_, body := p.send(http.MethodGet, hits, "")
		assert.Equal(t, "none", body["type"])
	})
}

func TestValueOfMostBytesIsStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(), "first", "variable/hits")
		value := strings.Repeat("x", mostBody)
		code, body := p.send(http.MethodPut, hits, value)
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, value, body["value"])
	})
}
