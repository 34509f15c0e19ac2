// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMissingToolsAreMappedToDebianPackages(t *testing.T) {
	assert.Equal(t, []string{"nftables", "runc"}, missingPackages(func(name string) (string, error) {
		if name == "nft" || name == "runc" {
			return "", os.ErrNotExist
		}
		return "/bin/" + name, nil
	}))
}
