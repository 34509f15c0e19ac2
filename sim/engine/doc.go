// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package engine runs the events of a simulated world in one process and one synctest bubble. The
// package knows nothing about Kubernetes or agents. The packages apiserver and world use package
// engine.
//
// # Guarantee
//
// Each event is a function. Only one event runs at a time, because each event holds the mutex. The
// history records the events in the order in which they ran. The first violation of an invariant
// ends the story.
//
// # Clocks
//
// True time is the time of the synctest bubble. A [Clock] is the clock of one machine. Its rate may
// differ from the rate of true time, and the clock may stand still.
//
// # Random sources
//
// Each actor has a separate random source, made from the seed and the actor's name. All delays are
// random to the nanosecond, so that no two events happen at one instant by chance.
//
// # Not guaranteed
//
// The Go scheduler chooses the order of the goroutines of one instant. So two replays of a seed may
// differ.
package engine
