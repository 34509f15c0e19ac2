// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func TestResourcesPageStatesResourcesOfInjectedContainers(t *testing.T) {
	page, err := os.ReadFile("../../docs/operate/resources.md")
	require.NoError(t, err)
	text := func(list corev1.ResourceList) string {
		return fmt.Sprintf("cpu %s, memory %s", list.Cpu(), list.Memory())
	}
	assert.Contains(t, string(page), fmt.Sprintf("| Burstable | %s | memory %s |", text(smallRequests), smallLimits.Memory()))
	assert.Contains(t, string(page), fmt.Sprintf("| Guaranteed | %s | %s |", text(smallLimits), text(smallLimits)))
	assert.Contains(t, string(page), fmt.Sprintf("`emptyDir` of %s at most", &volumeSize))
}
