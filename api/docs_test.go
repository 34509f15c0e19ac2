// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestAnnotationsAreDocumented checks that docs/reference/annotations.md describes the parser's table. With
// -update the test rewrites the file.
func TestAnnotationsAreDocumented(t *testing.T) {
	const path = "../docs/reference/annotations.md"
	want := annotationsDoc(t)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got), "run make golden")
}

func annotationsDoc(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("<!-- Generated from api/annotations.go by make golden. Do not edit. -->\n\n# Annotations\n\n")
	b.WriteString("Metaparticle reads annotations of a workload (" +
		strings.Join(KindsOf(func(o Owner) bool { return o.Carried }), ", ") + ") and of its\n" +
		"pod template, in namespaces with the label `" + InjectionLabel + "=" + InjectionEnabled + "`. The webhook carries an annotation\n" +
		"of a workload to its template. If a person removes the annotation from the workload, the webhook also removes the\n" +
		"annotation from the template. A Job's annotations count only at its creation. The annotations of a CronJob's job\n" +
		"template count like those of the CronJob. Of other kinds, such as Argo Rollouts, only the annotations of the pod\n" +
		"template count.\n\n")
	for _, part := range []struct {
		title string
		claim bool
	}{{"Claims", true}, {"Conditions, barriers, and settings of a claim", false}} {
		fmt.Fprintf(&b, "## %s\n\n| annotation | value | default | effect |\n|---|---|---|---|\n", part.title)
		for _, a := range Annotations {
			if (a.Kind != nil) == part.claim {
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", a.Key, a.Value, a.Default, a.Meaning)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("An annotation that is unknown or malformed causes a warning when the workload is applied, and an error at its\n" +
		"pods.\n\n" +
		"## How a lease duration is divided\n\n" +
		"If a holder cannot renew, its application is stopped before the lease expires. The application then has less time\n" +
		"to stop than a pod's usual grace period.\n\n" +
		"| `" + LeaseDurationAnnotation + "` | renewed every | stopped after | time to stop | killed, then margin | an outage that stops nothing |\n" +
		"|---|---|---|---|---|---|\n")
	for _, d := range []string{"15s", "30s", "60s", "2m"} {
		r, err := Parse(map[string]string{SingletonAnnotation: "true", LeaseDurationAnnotation: d})
		require.NoError(t, err)
		budget, err := NewBudget(r.LeaseDuration)
		require.NoError(t, err)
		fmt.Fprintf(&b, "| `%s` | %v | %v | %v | %v, %v | %v |\n", d,
			budget.Renew, budget.RenewDeadline, budget.Drain, budget.Kill, budget.Margin, budget.Outage())
	}
	b.WriteString("\n## On the Lease of a slot\n\n" +
		"A person, or a program with the right to patch Leases, writes these annotations on the Lease itself, except\n" +
		"`" + ServingAnnotation + "`. The commands `kubectl metaparticle pause`, `resume`, `yield` and `forget` write\n" +
		"them, too. Standbys and the holder watch the Lease, so they act without delay. A pod whose work is done watches no\n" +
		"Lease.\n\n" +
		"| annotation | value | effect |\n|---|---|---|\n")
	for _, a := range byHand {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", a.Key, a.Value, a.Meaning)
	}
	return b.String()
}

// byHand are the annotations that a person writes on a Lease, as docs/reference/annotations.md
// describes them.
var byHand = []Annotation{
	{
		Key: PausedAnnotation, Value: "`hold` or `stop`",
		Meaning: "No pod acquires the slot. With `hold` the holder goes on. If the application ends, no pod starts it again. With `stop` the holder " +
			"drains with its pod's grace, and releases. `kubectl metaparticle recover` writes `recover`, and ends that pause itself. Any other value counts as `hold`, and the pods' conditions and Events say so. " +
			"A claim of several slots is paused if one of them is paused. Each slot of a semaphore has a pause of its own. " +
			"If agent and shim of a semaphore's holder end together under a slot with `hold`, the pod acquires no other slot until the pause ends. " +
			"Enroll keeps a paused Lease that no pod claims. Electors of other programs ignore the pause.",
	},
	{
		Key: YieldAnnotation, Value: "`HOLD` or `HOLD POD_UID`",
		Meaning: "The hold with the number `HOLD` (`" + HoldAnnotation + "` of the same Lease) drains with its pod's grace, and releases " +
			"all of its slots. A later hold ignores the request. The release names the identity `POD_UID` in `" + SuccessorAnnotation + "`: the " +
			"other standbys leave that pod a second. While the slot is paused, the yield waits.",
	},
	{
		Key: DoneAnnotation, Value: "`key[,key…]`",
		Meaning: "The done keys of a once claim, at most 50, the oldest first. The agent of the holder adds a key with the release after a success. " +
			"A person may add the key of work that is done already. A new pod repeats the work of a key that a person removes (`kubectl metaparticle forget`). " +
			"Enroll keeps a Lease with done keys, and a policy refuses its deletion (`WorkDone`). Enroll deletes a Lease " +
			"`once-revision…` that no pod and no workload claims.",
	},
	{
		Key: FailuresAnnotation, Value: "`KEY COUNT[,…]`",
		Meaning: "`COUNT` is the number of failures in a row of the work of the key `KEY`. The agent of the holder raises the count with the release after a " +
			"failure. Then no pod of the key acquires the slot for 10 s, and for twice as long after each further failure, at most 5 min. " +
			"A person who has mended the cause may remove the annotation. Then the next attempt begins without delay.",
	},
	{
		Key: ServingAnnotation, Value: "a time (RFC 3339)",
		Meaning: "The holder's application runs and passes its probes since that time. While the application does not serve, the Lease " +
			"lacks the annotation. Only the holder's agent writes it. A person or a script waits for it with `kubectl wait --for=jsonpath`.",
	},
}

// The tables of docs/how-to/failsafe.md and docs/how-to/lease-duration.md are computed from the budgets.
func TestFailsafePageShowsTheBudgets(t *testing.T) {
	b, err := NewBudget(DefaultLeaseDuration)
	require.NoError(t, err)
	rows := []string{fmt.Sprintf("| none | %v | – | %v |", b.Outage(), b.Duration)}
	for _, outage := range []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute, 45 * time.Minute} {
		alone, err := b.Failsafe(outage)
		require.NoError(t, err)
		supported, err := b.WithSupporters(outage)
		require.NoError(t, err)
		rows = append(rows, fmt.Sprintf("| `%dm` | %v | %v | %v |", int(outage.Minutes()), alone.Outage(), supported.Duration, supported.Supported))
		require.Equal(t, alone.Duration, supported.Supported, "one column for both")
		require.Equal(t, alone.Deadline(), supported.SupportedDeadline(), "one column for both")
	}
	page, err := os.ReadFile("../docs/how-to/failsafe.md")
	require.NoError(t, err)
	require.Contains(t, string(page), strings.Join(rows, "\n")+"\n")
}

func TestLeaseDurationPageShowsTheBudgets(t *testing.T) {
	page, err := os.ReadFile("../docs/how-to/lease-duration.md")
	require.NoError(t, err)
	rows := 0
	for _, d := range []string{"10s", "15s", "30s", "60s", "2m", "10m"} {
		r, err := Parse(map[string]string{SingletonAnnotation: "true", LeaseDurationAnnotation: d})
		require.NoError(t, err)
		b, err := NewBudget(r.LeaseDuration)
		require.NoError(t, err)
		rows++
		require.Contains(t, string(page), fmt.Sprintf("| `%s` | %v | %v | %v | %.2g |\n", d, b.Duration,
			b.Outage().Round(time.Millisecond), b.Drain.Round(time.Millisecond), time.Minute.Seconds()/b.Renew.Seconds()))
	}
	require.Equal(t, rows, strings.Count(string(page), "\n| `"), "each row of the table")
}
