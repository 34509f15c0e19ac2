// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

type events struct{}

func newEvents(config Config) *events       { return &events{} }
func (e *events) run(ctx context.Context)   {}
func (e *events) acquired([]gate.SlotToken) {}
func (e *events) released(string)           {}
func (e *events) notReleased()              {}
func (e *events) lost()                     {}
