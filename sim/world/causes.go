// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

// Each function below is a cause that a case of the story "table" applies to a child, or to the
// child's pod.

func crash(c *child)      { c.exits("crashes", 1) }
func yield(c *child)      { c.pod().agent().agent.Yield() }
func stopPod(c *child)    { c.pod().stop() }
func ignoreStop(c *child) { c.stops = -1 }

// replaceAgent kills the agent, and the kubelet starts another agent process.
func replaceAgent(c *child) {
	c.pod().agent().kill()
	c.pod().restartAgent()
}
