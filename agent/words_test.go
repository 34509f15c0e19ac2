// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// words returns what the pods of the slot say.
func (w *world) words() api.Words {
	return api.ParseWords(w.server.lease(nextLease).Annotations[api.WordsAnnotation])
}

// speak replaces all words of the next Lease.
func (w *world) speak(words ...api.Word) {
	w.annotate(nextLease, api.WordsAnnotation, api.Words(words).String())
}

// wishes returns the wishes of pods of the new revision for the slot of the present hold.
func (w *world) wishes(identities ...string) (all api.Words) {
	for _, identity := range identities {
		all = append(all, api.Word{Say: api.WantsNewer, Identity: identity, To: w.holdID(), Revision: newRevision})
	}
	return all
}

// holdID returns the number of the present hold.
func (w *world) holdID() string { return w.server.lease(theSlot).Annotations[api.HoldAnnotation] }

// announcement is a holder's announcement that its hold ends.
type announcement struct {
	id, says string
	at       time.Time
}

// announcements returns the announcements that the pod has made, each as it first was.
func (p *pod) announcements() (all []announcement) {
	for _, r := range p.world.server.Requests("put") {
		id, says, _ := strings.Cut(r.Lease.Annotations[api.LeavingAnnotation], " ")
		if r.By == p.link.name && r.Name == theSlot && says != "" && (len(all) == 0 || all[len(all)-1].id != id) {
			all = append(all, announcement{id, says, r.At})
		}
	}
	return all
}

// announced waits for the holder's announcement, and returns its id.
func (w *world) announced() (id string) {
	w.t.Helper()
	w.within(time.Second, "the holder announces", func() bool {
		id, _, _ = strings.Cut(w.server.lease(theSlot).Annotations[api.LeavingAnnotation], " ")
		return id != ""
	})
	return id
}

func TestDelayedAnswerNeverErasesAnswersToNextHolder(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(1)
		goOn := make(chan struct{})
		d := w.start("d", behind(&ports{})...)
		d.link.set(func(l *link) { l.meddle = func() { <-goOn } })
		d.connect("late")
		w.pass(10 * time.Second)
		require.Equal(t, "True StandingBy", d.ready())
		s.holder.agent.Yield()
		w.pass(leave.Answers / 2)
		l := w.server.lease(theSlot)
		l.Holder, l.AcquireTime, l.Annotations[api.HoldAnnotation] = "c_u", time.Now(), "later"
		w.server.put(&l)
		answer := api.Word{Say: api.Stays, Identity: "e_u", To: "later.1"}
		w.speak(answer)
		w.pass(100 * time.Millisecond)
		close(goOn)
		w.pass(time.Second)
		assert.Equal(t, api.Words{answer}, w.words())
	})
}

// The holder's agent restarts during a leave. The next Lease keeps the answers to the old announcement.
// These answers must not count for an announcement of the new agent process.
func TestNewAgentProcessIgnoresAnswersToEarlierAnnouncement(t *testing.T) {
	for name, c := range map[string]struct {
		gone   bool
		leaves bool
	}{
		"the pods that answered answer again": {false, true},
		"the pods that answered are gone":     {true, false},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			s := w.serve(2)
			s.holder.agent.Yield()
			w.within(time.Second, "the holder is out", func() bool { return s.holder.ready() == "False Leaving" })
			s.holder.kill()
			a := w.start("a")
			a.gates.connect(a.gates.shim("s1").report)
			w.pass(20 * time.Second)
			require.True(t, a.running("s1"))
			require.Equal(t, "True Holding", a.ready())
			if c.gone {
				for _, p := range s.others {
					p.kill()
				}
			}
			w.pass(10 * time.Minute)
			a.agent.Yield()
			left := false
			for range 30 {
				w.pass(100 * time.Millisecond)
				left = left || a.ready() == "False Leaving"
			}
			assert.Equal(t, c.leaves, left, "at least one Ready pod stays")
		}))
	}
}

// announce announces the end of the hold with this number, as a thief of the holder's rights may do.
func (w *world) announce(number string) {
	l := w.server.lease(theSlot)
	l.RenewTime, l.Annotations = time.Now(), maps.Clone(l.Annotations)
	l.Annotations[api.LeavingAnnotation] = w.holdID() + "." + number + " " + api.LeavingSoon
	w.server.put(&l)
}

// A thief of the holder's rights announces a new end ten times a second.
func TestStandbyBoundsItsAnswersDespiteFrequentAnnouncements(t *testing.T) {
	simulate(t, func(w *world) {
		b, _ := w.outlive()
		sent := 0
		for n := range 600 {
			w.announce(strconv.Itoa(n))
			sent += b.requested(100 * time.Millisecond)
		}
		assert.Positive(t, sent)
		assert.LessOrEqual(t, sent, 2*(int(time.Minute/wordPause)+wordBurst))
	})
}

// A thief of the holder's rights changes the revision of the holder ten times a second, and with it the wish.
func TestStandbyBoundsItsWishesDespiteChangingHolder(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		b.connect("s3")
		w.within(15*time.Second, "the turn begins", func() bool { return b.running("s3") })
		w.within(time.Minute, "the revision is proven", func() bool { return w.rollout().Proven == newRevision })
		c := w.up("c", of(newRevision))
		w.pass(10 * time.Second)
		a.kill()
		b.kill()
		w.pods["a2"].kill()
		l, sent := w.server.lease(theSlot), 0
		text, newest := w.rollout(), api.Revision{Workload: newRevision.Workload, Number: newRevision.Number + 1, Hash: "n"}
		text.Yields = api.YieldsNow
		for n := range 600 {
			l.RenewTime, l.Annotations = time.Now(), maps.Clone(l.Annotations)
			l.Annotations[api.RolloutAnnotation] = text.String()
			l.Annotations[api.RevisionAnnotation] = []api.Revision{oldRevision, newest}[n%2].String()
			w.server.put(&l)
			w.pass(100 * time.Millisecond)
		}
		sent = c.about("put")
		assert.Positive(t, sent)
		assert.LessOrEqual(t, sent, int(time.Minute/wordPause)+wordBurst)
	})
}

func TestSpeakerWakesOnceItMaySpeakAgain(t *testing.T) {
	s := newSpeaker(&state{now: time.Hour})
	for range wordBurst {
		s.wishes.Spend(s.state.now)
	}
	assert.Equal(t, time.Hour+wordPause, s.say(t.Context(), api.WantsNewer, "h", 0, false))
	assert.Zero(t, s.word)
}

// A start lock that other pods take and release lets the pod take back its wish and repeat it, so that it soon may
// not repeat it at once.
func TestWishesKeepNoAnswerBack(t *testing.T) {
	simulate(t, func(w *world) {
		app := newPatient()
		a, _ := w.lockedPods(app)
		a.link.set(func(l *link) { l.mute, l.hidden = true, nextLease })
		b := w.start("b", startLocked(app, newRevision))
		b.connect("s3")
		w.within(time.Second, "the pod wishes", func() bool { return w.words().Of(b.identity()) })
		wish := w.words()
		w.pass(time.Minute)
		for range 10 {
			w.lockStarts(pauseStarts)
			w.pass(200 * time.Millisecond)
			w.lockStarts(resumeStarts)
			w.pass(200 * time.Millisecond)
		}
		a.link.set(func(l *link) { l.mute, l.hidden = false, "" })
		w.speak(wish...)
		w.within(3*time.Second, "the turn begins", func() bool { return b.running("s3") })
		assert.Equal(t, []string{"soon:b_u"}, a.says())
	})
}

// A person who may patch Leases can write 256 KiB of annotations.
func TestStandbyRepeatsNoOverlongAnnouncement(t *testing.T) {
	simulate(t, func(w *world) {
		w.outlive()
		w.announce(strings.Repeat("1", 200<<10))
		w.pass(time.Second)
		assert.Empty(t, w.server.lease(nextLease).Annotations[api.WordsAnnotation])
	})
}

// about returns the number of the pod's requests with this verb for the next Lease.
func (p *pod) about(verb string) (n int) {
	for _, r := range p.world.server.Requests(verb) {
		if r.By == p.link.name && r.Name == nextLease {
			n++
		}
	}
	return n
}

// The holder hears the wish late, after something has happened to the pod that wishes.
func TestCandidateThatCannotTakeTheSlotCostsNoStop(t *testing.T) {
	for name, fail := range map[string]func(w *world, b *pod) (undo func()){
		"its machine has vanished": func(_ *world, b *pod) func() { b.kill(); return nil },
		"it is deleted":            func(_ *world, b *pod) func() { b.delete(); return nil },
		"its container is down": func(_ *world, b *pod) func() {
			b.gates.report("s3", func(r *gate.Report) { r.Connected, r.Dead, r.Phase = false, true, gate.Ended })
			return nil
		},
		"its start lock is paused": func(w *world, _ *pod) func() {
			w.lockStarts(pauseStarts)
			return func() { w.lockStarts(resumeStarts) }
		},
		"its start lock is taken": func(w *world, _ *pod) func() {
			w.lockStarts(func(l *kube.Lease) {
				l.Holder, l.AcquireTime, l.RenewTime, l.DurationSeconds = "other_u", time.Now().Add(-2*slowStart), time.Now(), 60
			})
			return func() { w.lockStarts(func(l *kube.Lease) { l.Holder = "" }) }
		},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			app := newPatient()
			a, _ := w.lockedPods(app)
			a.link.set(func(l *link) { l.mute = true })
			b := w.start("b", startLocked(app, newRevision))
			b.connect("s3")
			w.within(time.Second, "the pod wishes", func() bool { return w.words().Of(b.identity()) })
			w.pass(clearFor)
			undo := fail(w, b)
			w.pass(time.Second)
			a.link.set(func(l *link) { l.mute = false })
			w.speak(w.words()...)
			w.announced()
			w.pass(leave.Another + 100*time.Millisecond)
			require.Equal(t, []string{"soon:b_u"}, a.says())
			assert.Empty(t, w.server.lease(theSlot).Annotations[api.LeavingAnnotation], "the announcement is withdrawn")
			assert.Empty(t, a.gates.told(), "the application never stops")

			if undo == nil {
				b = w.start("c", startLocked(app, newRevision))
				b.connect("s3")
			} else {
				undo()
			}
			w.within(15*time.Second, "the next live candidate runs", func() bool { return b.running("s3") })
			assert.Equal(t, "soon:"+b.identity(), a.says()[1])
		}))
	}
}

// says returns the second words of the pod's announcements.
func (p *pod) says() (all []string) {
	for _, one := range p.announcements() {
		all = append(all, one.says)
	}
	return all
}

// A dead pod's wish stays in the next Lease. A live pod's wish comes before it.
func TestAnnouncementsWithoutAnAnswerBackOff(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		w.speak(w.wishes("x_u")...)
		w.pass(time.Hour)
		assert.Empty(t, a.gates.told())
		all := a.announcements()
		for i, pause := range []time.Duration{10, 20, 40, 80, 160, 300, 300, 300, 300} {
			assert.InDelta(t, pause*time.Second+leave.Another, all[i+1].at.Sub(all[i].at), float64(time.Second), "%d", i)
		}
		assert.LessOrEqual(t, len(all), 16)
		b.connect("s3")
		w.within(5*time.Minute+5*time.Second, "the turn begins", func() bool { return b.running("s3") })
		assert.Equal(t, "soon:"+b.identity(), a.says()[len(all)])
	})
}

// The holder hears nothing, so the wish waits.
func TestLostWishIsSaidAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for name, lose := range map[string]func(w *world){
		"a person has removed it":                 func(w *world) { w.speak() },
		"pods that are dead now have replaced it": func(w *world) { w.speak(w.wishes("x_u", "y_u")...) },
		"the next Lease is new": func(w *world) {
			w.server.remove(nextLease)
			w.free(nextLease)
		},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			a, b := w.rolling()
			a.link.set(func(l *link) { l.mute, l.hidden = true, nextLease })
			b.connect("s3")
			wishes := func() bool { return w.words().Of(b.identity()) }
			w.within(time.Second, "the pod wishes", wishes)
			lose(w)
			w.within(2*wordPause, "the pod wishes again", wishes)
			gets := b.about("get")
			w.pass(time.Hour)
			assert.Equal(t, 2, b.about("put"))
			assert.LessOrEqual(t, b.about("get")-gets, 11, "at 10 s, 20 s, …, 10 min")
			lose(w)
			w.within(longestWishPause+wordPause, "the pod wishes again", wishes)
		}))
	}
}

// The holder hears nothing, so all wishes wait. If all pods looked at once, their writes would only conflict.
func TestManyPodsThatWishSendFewRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	simulate(t, func(w *world) {
		a := w.first(of(oldRevision))
		w.pass(api.TurnRest + 10*time.Second)
		a.link.set(func(l *link) { l.mute, l.hidden = true, nextLease })
		for i := range 100 {
			w.up(fmt.Sprint("b", i), of(newRevision)).link.set(func(l *link) { l.slow = 5 * time.Millisecond })
		}
		w.pass(time.Second)
		sent, most := w.about(), 0
		require.Less(t, sent, 600)
		for range 40 {
			w.pass(time.Second)
			now := w.about()
			sent, most = now, max(most, now-sent)
		}
		assert.Less(t, most, 100)
	})
}

// Before each write of the pod, a liar writes the next Lease, so the pod's write conflicts.
func TestPodThatWishesBoundsItsRequestsDespiteConflictingWrites(t *testing.T) {
	simulate(t, func(w *world) {
		_, b := w.rolling()
		b.link.set(func(l *link) {
			writes := 0
			l.meddle = func() {
				if writes++; writes > 1000 {
					return // without this bound, the test would hang instead of failing
				}
				w.annotate(nextLease, api.WordsAnnotation, fmt.Sprint(writes))
			}
		})
		b.connect("s3")
		assert.LessOrEqual(t, b.requested(time.Minute), elector.PerMinute+elector.Burst)
		assert.LessOrEqual(t, b.requested(time.Minute), elector.PerMinute)
	})
}

// about returns the number of all requests about the next Lease.
func (w *world) about() (n int) {
	for _, r := range w.server.Requests("get", "put", "watch") {
		if r.Name == nextLease {
			n++
		}
	}
	return n
}

// Liars put new wishes before all others again and again, and never answer.
func TestPodThatNeverAnswersHoldsNothingUp(t *testing.T) {
	lie := func(w *world, until time.Duration, what string, done func() bool) {
		w.t.Helper()
		for at := range int64(until / time.Second) {
			words := w.wishes("x_u", "y_u")
			words[0].At, words[1].At = at, at
			for _, other := range w.words() {
				if !words.Of(other.Identity) {
					words = append(words, other)
				}
			}
			w.speak(words...)
			if w.pass(time.Second); done() {
				return
			}
		}
		assert.Fail(w.t, "not within "+until.String(), what)
	}
	t.Run("a rollout", simulated(func(t *testing.T, w *world) {
		_, b := w.rolling()
		b.connect("s3")
		lie(w, 2*time.Minute, "the turn begins", func() bool { return b.running("s3") })
	}))
	t.Run("a holder that hangs", simulated(func(t *testing.T, w *world) {
		app := newPatient()
		hangs := func(c *Config) { c.YieldAfter = 10 * time.Second }
		a := w.first(of(oldRevision), app.probed("readiness"), hangs)
		b := w.up("b", of(oldRevision), hangs)
		w.pass(2 * api.TurnRest)
		a.hangs(app)
		lie(w, 2*time.Minute, "the other pod takes the slot", b.runs)
	}))
}

// A person restores an old state of the next Lease. Each of its words names the hold, or the announcement,
// that it is about.
func TestOldWordsEndNoHold(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		first := w.holdID()
		a.link.set(func(l *link) { l.mute = true })
		b.connect("s3")
		w.within(time.Second, "the pod wishes", func() bool { return w.words().Of(b.identity()) })
		wish := w.words()
		a.link.set(func(l *link) { l.mute = false })
		w.speak(wish...)
		w.within(time.Second, "the turn begins", func() bool { return b.running("s3") })
		answer := w.words()
		require.Equal(t, first, strings.Split(answer[0].To, ".")[0])
		b.crash("s3")
		w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
		b.kill()
		w.pass(2 * api.TurnRest)
		told := a.gates.told()
		for _, old := range []api.Words{wish, answer} {
			w.speak(old...)
			w.pass(api.TurnRest)
		}
		assert.Len(t, a.announcements(), 1)

		w.speak(w.wishes(b.identity())...)
		w.announced()
		w.speak(answer[0], api.Word{Say: api.Takes, Identity: "x_u", To: w.holdID() + ".1"})
		w.pass(time.Minute)
		assert.Equal(t, told, a.gates.told())
		assert.True(t, a.running("s1"))
	})
}

// patients gives each pod an application of its own, with a readiness probe and the time after which it hangs.
func patients(apps map[string]*patient, sick ...string) func(c *Config) {
	return func(c *Config) {
		if apps[c.PodName] == nil {
			apps[c.PodName] = newPatient(sick...)
		}
		apps[c.PodName].probed("readiness")(c)
		c.YieldAfter = time.Minute
	}
}

// probing lets the time d pass, while the kubelet sends the readiness probes of the pods.
func (w *world) probing(d time.Duration, pods ...*pod) {
	for end := w.clock() + d; w.clock() < end; w.pass(5 * time.Second) {
		for _, p := range pods {
			p.kubelet("readiness")
		}
	}
}

// hangs lets the pod's application fail its readiness probe until the pod is not Ready.
func (p *pod) hangs(app *patient) {
	app.be(true, "readiness")
	p.world.probing(15*time.Second, p)
}

func TestHolderThatHangsHandsOver(t *testing.T) {
	for name, c := range map[string]struct{ all, other func(c *Config) }{
		"with turns":            {of(oldRevision), of(oldRevision)},
		"with ports":            {lingering(&ports{}), lingering(&ports{})},
		"without a revision":    {of(unordered), of(unordered)},
		"readiness of a holder": {func(c *Config) { c.Readiness = api.ReadinessHolder }, of(unordered)},
		"another workload": {of(oldRevision), func(c *Config) {
			c.Workload, c.Revision = "Deployment/other", api.Revision{Workload: "2d7a", Number: 3, Hash: "o"}
		}},
		"another template, without turns": {
			func(c *Config) { c.Readiness, c.Revision = api.ReadinessHolder, oldRevision }, func(c *Config) { c.Readiness, c.Revision = api.ReadinessHolder, newRevision },
		},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			apps := map[string]*patient{}
			a := w.first(c.all, patients(apps))
			b := w.up("b", c.all, c.other, patients(apps))
			w.pass(api.TurnRest + time.Second)
			a.hangs(apps["a"])
			took := w.within(time.Minute+time.Second, "the other pod runs", b.runs)
			assert.GreaterOrEqual(t, took, 55*time.Second)
			assert.Equal(t, []string{ends.Hung.Reason}, a.gates.told())
			assert.Equal(t, []string{api.LeavingSoon}, a.says())
			assert.Equal(t, name != "another workload", w.rollout().Hung == a.identity(), "only a lock is shared, so that counts as a deleted one")

			// For a while the pod whose application hung takes only a slot that stays free.
			c := w.up("c", c.all, c.other, patients(apps))
			w.pass(10 * time.Second)
			b.crash("b")
			w.within(2*time.Second, "the third pod runs", c.runs)
			c.crash("c")
			w.pass(turn.LastResort - time.Second)
			assert.False(t, a.runs())
			w.within(5*time.Second, "the first pod runs", a.runs)
		}))
	}
}

// A row returns what enables another pod to run the application. Until then the holder announces its end in vain.
func TestHungHolderGoesOnWithoutAReasonToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for name, c := range map[string]struct {
		sick  []string
		other func(w *world, apps map[string]*patient) (enable func())
	}{
		"it has never served": {[]string{"readiness"}, func(w *world, apps map[string]*patient) func() {
			w.up("b", patients(apps))
			return nil
		}},
		"a person has paused the slot": {nil, func(w *world, apps map[string]*patient) func() {
			w.up("b", patients(apps))
			w.annotate(theSlot, api.PausedAnnotation, "hold")
			return nil
		}},
		"enroll knows of no other pod": {nil, func(w *world, _ map[string]*patient) func() {
			w.annotate(nextLease, api.AloneAnnotation, "true")
			return nil
		}},
		"no other pod exists": {nil, func(w *world, apps map[string]*patient) func() {
			return func() { w.up("b", patients(apps)) }
		}},
		"no other pod can start": {nil, func(w *world, apps map[string]*patient) func() {
			b := w.start("b", patients(apps))
			return func() { b.connect("b") }
		}},
		"a person has paused the start lock": {nil, func(w *world, apps map[string]*patient) func() {
			w.free(startSlot)
			w.up("b", patients(apps), func(c *Config) { c.StartSlots = []string{startSlot} })
			w.lockStarts(pauseStarts)
			return func() { w.lockStarts(resumeStarts) }
		}},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			apps := map[string]*patient{}
			a := w.first(patients(apps, c.sick...))
			enable := c.other(w, apps)
			w.pass(api.TurnRest)
			a.hangs(apps["a"])
			w.pass(time.Hour)
			assert.Empty(t, a.gates.told())
			if enable == nil {
				assert.Empty(t, a.announcements())
				return
			}
			assert.NotEmpty(t, a.announcements())
			assert.LessOrEqual(t, len(a.announcements()), 16)
			enable()
			w.within(5*time.Minute+5*time.Second, "the other pod runs", func() bool { return w.pods["b"].runs() })
		}))
	}
}

// A database behind all pods fails for an hour. Later it works for half a minute, again and again.
func TestDeadDatabaseMovesSlotSeldom(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for name, revision := range map[string]api.Revision{"with turns": oldRevision, "without": unordered} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot, nextLease)
			apps, pods := map[string]*patient{}, []*pod{}
			for _, name := range []string{"a", "b", "c"} {
				pods = append(pods, w.up(name, of(revision), patients(apps)))
				w.pass(time.Second)
			}
			w.pass(api.TurnRest)
			all := func(sick bool) {
				for _, app := range apps {
					app.be(sick, "readiness")
				}
			}
			all(true)
			w.probing(time.Hour, pods...)
			assert.Equal(t, 2, w.starts(), "the slot moves once, to an application that never serves")
			all(false)
			w.probing(api.TurnForget+api.TurnRest, pods...)
			began, moves := time.Now(), []time.Duration{}
			for hold := w.holdID(); time.Since(began) < 40*time.Minute; {
				all(time.Since(began)%(3*time.Minute) > 30*time.Second)
				w.probing(5*time.Second, pods...)
				if now := w.holdID(); now != hold && now != "" {
					hold, moves = now, append(moves, time.Since(began))
				}
			}
			require.Len(t, moves, 5, "the earlier hang is forgotten")
			for n := 1; n < len(moves); n++ {
				assert.GreaterOrEqual(t, moves[n]-moves[n-1], time.Minute<<n, "%v", moves)
			}
		}))
	}
}

// A node returns, and with it the pod that a preference names.
func TestPreferredPodGetsTheSlotBack(t *testing.T) {
	simulate(t, func(w *world) {
		apps := map[string]*patient{}
		s := w.serve(2, patients(apps), func(c *Config) {
			if c.Preferred = PrefersOthers; c.PodName == "b" {
				c.Preferred = PrefersSelf
			}
		})
		b := s.others[0]
		took := w.within(api.PreferSettled, "the preferred pod runs", func() bool { return b.running("b") })
		assert.InDelta(t, (api.PreferSettled - api.TurnRest).Seconds(), took.Seconds(), 15)
		assert.Equal(t, []string{"soon:b_u"}, s.holder.says())
		assert.Equal(t, []string{"True"}, s.others[1].readiness(), "throughout")
		w.pass(time.Hour)
		require.Equal(t, 2, w.starts(), "the preferred pod keeps the slot")

		b.hangs(apps["b"])
		w.within(2*time.Minute, "another pod runs", func() bool { return s.holder.running("s1") || s.others[1].running("c") })
		apps["b"].be(false, "readiness")
		w.pass(api.TurnForget - 10*time.Second)
		require.Equal(t, 3, w.starts(), "not to the pod that hung last")
		took = w.within(api.PreferSettled, "the preferred pod runs", func() bool { return b.running("b") })
		assert.LessOrEqual(t, took, time.Minute, "once the other pod has served for long")

		b.crash("b")
		w.within(2*time.Second, "another pod runs", func() bool { return s.holder.running("s1") || s.others[1].running("c") })
		b.connect("b2")
		w.pass(4*api.PreferSettled - 5*time.Second)
		require.Equal(t, 5, w.starts(), "a pod whose application has hung, and then crashed, must be Ready for four times as long")
		w.within(15*time.Second, "the preferred pod runs", func() bool { return b.running("b2") })
	})
}

// The application of the preferred pod fails each time that it has run for a minute. Each failure makes the
// preference sleep for twice as long.
func TestPreferredPodWhoseApplicationFailsTakesTheSlotSeldom(t *testing.T) {
	crash := func(w *world, p *pod, shim gate.ShimID, end func()) gate.ShimID {
		end()
		w.within(2*time.Second, "another pod runs", func() bool { return w.holder() != "" && w.holder() != p.identity() })
		p.connect(shim + "b")
		return shim + "b"
	}
	for name, fail := range map[string]func(w *world, p *pod, shim gate.ShimID) (next gate.ShimID){
		"it crashes": func(w *world, p *pod, shim gate.ShimID) gate.ShimID {
			return crash(w, p, shim, func() { p.gates.fail(shim) })
		},
		"it ends": func(w *world, p *pod, shim gate.ShimID) gate.ShimID {
			return crash(w, p, shim, func() { p.crash(shim) })
		},
		"the kubelet kills it for its liveness probe": func(w *world, p *pod, shim gate.ShimID) gate.ShimID {
			p.gates.report(shim, func(r *gate.Report) { r.Stopping = true })
			return crash(w, p, shim, func() { p.crash(shim) })
		},
		"its node is cut off": func(w *world, p *pod, shim gate.ShimID) gate.ShimID {
			p.link.set(func(l *link) { l.cut = true })
			w.within(40*time.Second, "another pod runs", func() bool { return w.holder() != p.identity() })
			p.link.set(over)
			return shim
		},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			s := w.serve(2, func(c *Config) {
				if c.Preferred = PrefersOthers; c.PodName == "b" {
					c.Preferred = PrefersSelf
				}
			})
			b, shim, fails := s.others[0], gate.ShimID("b"), []time.Duration{}
			for began := w.clock(); w.clock() < began+5*time.Hour; w.pass(5 * time.Second) {
				if !b.running(shim) {
					continue
				}
				w.pass(time.Minute)
				fails = append(fails, w.clock()-began)
				shim = fail(w, b, shim)
			}
			require.Len(t, fails, 5, "%v", fails)
			for n := 1; n < len(fails); n++ {
				assert.GreaterOrEqual(t, fails[n]-fails[n-1], api.PreferSettled<<n, "%v", fails)
			}
		}))
	}
}

// A node of the preferred zone is broken, so the application never serves there. Without yield-after, too.
func TestPreferredPodThatNeverServesHandsOver(t *testing.T) {
	for name, c := range map[string]struct {
		other bool
		after time.Duration
	}{"another pod serves": {true, 0}, "with yield-after": {true, time.Minute}, "nobody else is there": {false, 0}} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			apps := map[string]*patient{"b": newPatient("readiness")}
			s := w.serve(1, patients(apps), func(config *Config) {
				config.YieldAfter = c.after
				if config.Preferred = PrefersOthers; config.PodName == "b" {
					config.Preferred = PrefersSelf
				}
			})
			b := s.others[0]
			w.within(api.PreferSettled, "the preferred pod runs", func() bool { return b.running("b") })
			if !c.other {
				s.holder.kill()
				w.pass(time.Hour)
				assert.Empty(t, b.gates.told())
				return
			}
			took := w.within(3*time.Minute, "the other pod serves again", func() bool { return s.holder.running("s1") })
			assert.GreaterOrEqual(t, took, time.Minute, "it had time to start")
			assert.Equal(t, []string{ends.Hung.Reason}, b.gates.told())
			w.pass(api.TurnForget - 10*time.Second)
			assert.Equal(t, 3, w.starts(), "the preference sleeps")
		}))
	}
}

// The only standby answers the hang, and is away for some seconds when the slot is released.
func TestPreferredPodThatTookItsSlotBackHandsOver(t *testing.T) {
	simulated(func(t *testing.T, w *world) {
		s := w.serve(1, patients(map[string]*patient{"b": newPatient("readiness")}), func(config *Config) {
			config.YieldAfter = 0
			if config.Preferred = PrefersOthers; config.PodName == "b" {
				config.Preferred = PrefersSelf
			}
		})
		a, b := s.holder, s.others[0]
		w.within(api.PreferSettled+time.Minute, "the preferred pod runs", func() bool { return b.running("b") })
		w.within(3*time.Minute, "the standby answers", func() bool {
			return slices.ContainsFunc(w.words(), func(one api.Word) bool { return one.Identity == a.identity() && one.Say == api.Takes })
		})
		a.link.set(func(l *link) { l.cut = true })
		w.pass(3 * time.Minute)
		require.Equal(t, b.identity(), w.holder(), "it took the slot back")
		a.link.set(over)
		w.within(time.Hour, "the standby runs", func() bool { return w.holder() == a.identity() })
	})(t)
}

// A pod of a newer revision has died after its wish, which stays in the next Lease.
func TestDeadWishKeepsSlotNeitherFromPreferredPodNorAtAHungOne(t *testing.T) {
	for name, c := range map[string]struct {
		hangs bool
		dead  int
	}{
		"the holder hangs": {true, 1}, "the holder is not preferred": {false, 1}, "the holder hangs, two wishes": {true, 2}, "the holder is not preferred, two wishes": {false, 2},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			apps := map[string]*patient{}
			s := w.serve(1, patients(apps), func(c *Config) {
				if c.Preferred = PrefersOthers; c.PodName == "b" {
					c.Preferred = PrefersSelf
				}
			})
			w.speak(w.wishes("x_u", "y_u")[:c.dead]...)
			w.pass(api.PreferSettled / 2)
			limit := 2 * api.PreferSettled
			if c.hangs {
				s.holder.hangs(apps["a"])
				limit = time.Minute + time.Duration(c.dead)*6*time.Minute
			}
			w.within(limit, "the standby runs", func() bool { return s.others[0].running("b") })
		}))
	}
}

// The application hangs, and its agent restarts before the end of yield-after.
func TestHangOutlastsARestartOfTheAgent(t *testing.T) {
	for name, c := range map[string]struct {
		revision api.Revision
		after    time.Duration
		hangs    bool
	}{
		"with turns":      {oldRevision, 20 * time.Second, true},
		"without turns":   {unordered, 20 * time.Second, true},
		"it is unready":   {unordered, 0, true},
		"it serves again": {oldRevision, 20 * time.Second, false},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			apps := map[string]*patient{}
			a := w.first(of(c.revision), patients(apps))
			b := w.up("b", of(c.revision), patients(apps))
			w.pass(api.TurnRest + time.Second)
			a.hangs(apps["a"])
			w.probing(c.after, a)
			a.kill()
			a = w.start("a")
			a.gates.connect(a.gates.shim("a").report)
			w.probing(50*time.Second, a)
			assert.True(t, a.runs(), "the application has time to start")
			apps["a"].be(c.hangs, "readiness")
			w.probing(2*time.Minute, a)
			assert.Equal(t, c.hangs, b.runs())
		}))
	}
}
