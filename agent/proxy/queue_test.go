// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// After one change of the target, the first connection dials in vain. At the next change, other
// connections still wait to dial since the first change.
func TestConnectionThatDialledInVainKeepsItsPlace(t *testing.T) {
	var q queue
	var tickets []*ticket
	for number := range uint64(2*dialsAtOnce + 1) {
		tickets = append(tickets, q.join(number))
	}
	q.wake()
	first := tickets[0]
	assert.True(t, first.dials)
	first.leave()
	again := q.again(first, first.number)
	assert.NotSame(t, first, again)
	q.wake()
	assert.False(t, again.dials)
	tickets[1].leave()
	assert.True(t, again.dials, "the first connection dials before those that came later")
	assert.False(t, tickets[dialsAtOnce+1].dials)
}
