// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNetworkLinkWithoutUpFlagCountsAsCut(t *testing.T) {
	out := `4: vn1@if2: <BROADCAST,MULTICAST> mtu 1500 qdisc noqueue master br0 state DOWN
5: vn2@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master br0 state UP
`
	assert.Equal(t, map[string]bool{"vn1": true, "vn2": false}, parseCutLinks(out))
}
