// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

// The functions below are the causes of rows. Each happens to a child, or to its pod.

func crash(c *child)      { c.exits("crashes", 1) }
func yield(c *child)      { c.pod().agent().agent.Yield() }
func stopPod(c *child)    { c.pod().stop() }
func ignoreStop(c *child) { c.stops = -1 }

// replaceAgent kills the agent, and the kubelet starts another agent process.
func replaceAgent(c *child) {
	c.pod().agent().kill()
	c.pod().restartAgent()
}
