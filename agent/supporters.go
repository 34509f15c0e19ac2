// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
)

func (s *state) answerHolder(_ context.Context, _ string) (answer string, err error) {
	return "", errors.New("not yet")
}
