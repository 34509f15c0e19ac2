// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/client-go/rest"

	"github.com/metaparticle-io/metaparticle/cmd/kubectl-metaparticle/check"
)

const checkUsage = `Judges an installation, or with --before a cluster before an installation. The
command only reads objects and sends dry runs, so the cluster stays as it is. For
each failed check and each warning, the command says what to do. With --image, the
webhook also reads the image's command, as for a pod without a command.

Exit codes: 0 no check failed, but some may have warned; 1 a check failed; 2 no
check failed, but some are unknown, for example because you lack a right; or an error.

  kubectl metaparticle check [--before] [--image IMAGE] [-o json|yaml]
`

func checkCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newFlags("check", checkUsage, std)
	var before bool
	var output string
	c := check.Cluster{Release: release, Target: targetOf}
	flags.BoolVar(&before, "before", false, "judge a cluster before an installation")
	flags.StringVar(&c.Image, "image", "", "an image that the webhook is to read")
	flags.StringVar(&output, "o", "", "json or yaml; default: text for people")
	rest, err := parse(flags, args)
	switch {
	case err != nil:
		return exitError, err
	case len(rest) > 0:
		return exitError, fmt.Errorf("check takes no argument: leave out %q", rest[0])
	case output != "" && output != "json" && output != "yaml":
		return exitError, fmt.Errorf("-o is %q: write json or yaml", output)
	}
	opened, _, err := connection.open()
	if err != nil {
		return exitError, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c.Client = opened
	if err := connection.greet(ctx, &c); err != nil {
		return exitError, fmt.Errorf("the API server does not answer: %w", err)
	}
	judge := check.After
	if before {
		judge = check.Before
	}
	return tell(std.out, judge(ctx, c), output)
}

// checkTimeout bounds the time of all checks together. If the webhook does not answer, a check
// takes as long as the timeout of the webhook: ten seconds.
const checkTimeout = time.Minute

// greet asks the API server for its version, and notes this version, the API server's time, and whether
// API Priority and Fairness has judged the request.
func (c connection) greet(ctx context.Context, of *check.Cluster) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	caller, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("version").String(), nil)
	if err != nil {
		return err
	}
	answer, err := caller.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /version: %s", answer.Status)
	}
	if err := json.NewDecoder(answer.Body).Decode(&of.Version); err != nil {
		return fmt.Errorf("GET /version: %w", err)
	}
	of.Fair = answer.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID) != ""
	of.Now, err = http.ParseTime(answer.Header.Get("Date"))
	return err
}

// tell writes the findings. The result is exitRefused if one of the checks failed. Otherwise the result
// is exitError if the command could not do one of the checks.
func tell(out io.Writer, findings []check.Finding, output string) (int, error) {
	counts := map[check.Result]int{}
	for _, f := range findings {
		counts[f.Result]++
	}
	code := exitOK
	switch {
	case counts[check.Failed] > 0:
		code = exitRefused
	case counts[check.Unknown] > 0:
		code = exitError
	}
	shown := func(text string) string { return inOneLine(strings.ReplaceAll(text, "\n", "; ")) }
	if output != "" {
		if output == "yaml" {
			findings = slices.Clone(findings)
			for i, f := range findings {
				findings[i].Says, findings[i].Do = shown(f.Says), shown(f.Do)
			}
		}
		text, err := encoded(map[string]any{"checks": findings}, output)
		if err == nil {
			_, err = out.Write(text)
		}
		return code, err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Result, f.Check, shown(f.Says))
		if f.Do != "" {
			fmt.Fprintf(table, "\t\t→ %s\n", shown(f.Do))
		}
	}
	if err := table.Flush(); err != nil {
		return code, err
	}
	say(out, "%d ok, %d warning, %d failed, %d unknown", counts[check.OK], counts[check.Warning], counts[check.Failed], counts[check.Unknown])
	return code, nil
}
