// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import "github.com/metaparticle-io/metaparticle/sim/world"

// Each function below is a cause that a case of the story "table" applies to a child, or to the
// child's pod.

func crash(c *world.Child)      { c.Exits("crashes", 1) }
func yield(c *world.Child)      { c.Pod().Agent().Agent.Yield() }
func stopPod(c *world.Child)    { c.Pod().Stop() }
func ignoreStop(c *world.Child) { c.Stops = -1 }

// replaceAgent kills the agent, and the kubelet starts another agent process.
func replaceAgent(c *world.Child) {
	c.Pod().Agent().Kill()
	c.Pod().RestartAgent()
}
