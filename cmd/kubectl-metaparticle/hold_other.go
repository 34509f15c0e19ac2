// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "context"

func (h holding) run(context.Context, cluster) (int, error) {
	return exitError, refusal("hold needs Linux, where it can find and kill all processes that COMMAND starts: run it in a container or a pod")
}

func guardMain() {}
