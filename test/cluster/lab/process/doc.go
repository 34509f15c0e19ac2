// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package process starts the processes of the cluster, finds them again, and ends
// them.
//
// A process outlives the command that started it. A file in the state directory records its PID
// and start time. So no later process with the same PID is mistaken for the recorded process.
package process
