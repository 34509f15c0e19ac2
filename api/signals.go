// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

// KeptSignals are the signals that a shim cannot pass on, by their names or numbers. The names here
// lack the prefix "SIG". The shim needs SIGCHLD to reap children. The Go runtime or the C library
// uses the other signals. The webhook refuses a container with such a stop signal, and so does the
// shim.
var KeptSignals = []string{"CHLD", "CLD", "17", "URG", "23", "PROF", "27", "32", "33", "RTMIN", "RTMIN+0", "34"}
