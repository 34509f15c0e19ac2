// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"time"

	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// requestFaults causes the faults of requests.
type requestFaults struct{ *workloads }

// shift changes the [apiserver.Weather], the set of faults of requests. The weather in the field
// "climate" counts as fair. Fair weather mostly becomes foul, and any other weather becomes fair.
func (f requestFaults) shift() {
	if f.API.Weather == f.climate && engine.Chance(f.Rng, .7) {
		f.begin(apiserver.Foul)
		f.Note("script", "foul weather")
		return
	}
	f.API.Weather = f.climate
	f.Note("script", "fair weather")
}

// begin begins the weather, to which the lasting faults of the climate are added.
func (f requestFaults) begin(w apiserver.Weather) {
	w.Watches, w.Idle, w.Silent = f.climate.Watches, f.climate.Idle, f.climate.Silent
	f.API.Weather = w
}

// fail makes all requests of one kind fail, while those of other kinds work.
func (f requestFaults) fail() {
	f.failAs(f.Rng.IntN(3), engine.Pick(f.Rng, apiserver.Faults))
}

// failAs makes all requests of one kind fail for a while. The kinds are gets, puts, watches and
// patches, in this order.
func (f requestFaults) failAs(which int, what apiserver.Fault) {
	of := func(w *apiserver.Weather) *apiserver.Fault {
		return []*apiserver.Fault{&w.Gets, &w.Puts, &w.Watches, &w.Patches}[which]
	}
	*of(&f.API.Weather) = what
	f.Note("script", "%s fail (%v)", []string{"gets", "puts", "watches", "patches"}[which], what)
	f.After(engine.Between(f.Rng, 100*time.Millisecond, 2*f.longest), func() {
		*of(&f.API.Weather) = *of(&f.climate)
	})
}

// strange returns the faults that proxies and broken servers cause.
func (f requestFaults) strange() []func() {
	return []func(){f.shiftStrangely, f.shiftStrangely, f.failStrangely, f.failStrangely}
}

// shiftStrangely turns the seed's climate into strange weather, and any other weather into the
// climate.
func (f requestFaults) shiftStrangely() {
	if f.API.Weather != f.climate {
		f.API.Weather = f.climate
		f.Note("script", "fair weather")
		return
	}
	f.begin(apiserver.Strange)
	f.Note("script", "strange weather")
}

// failStrangely makes all requests of one kind fail for a while, with an answer that a proxy or a
// broken server gives. With the 404 of a proxy only gets or puts fail.
func (f requestFaults) failStrangely() {
	which, what := f.Rng.IntN(4), engine.Pick(f.Rng, apiserver.StrangeFaults)
	if what == apiserver.Misrouted {
		which %= 2
	}
	f.failAs(which, what)
}
