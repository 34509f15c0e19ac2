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

	"github.com/spf13/cobra"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/client-go/rest"

	"github.com/metaparticle-io/metaparticle/cmd/kubectl-metaparticle/check"
)

const checkLong = `Judges an installation, or with --before a cluster before an installation. The
command only reads objects and sends dry runs, so the cluster stays as it is. For
each failed check and each warning, the command says what to do. With --image, the
webhook also reads the image's command, as for a pod without a command.

Exit codes: 0 no check failed, but some may have warned; 1 a check failed; 2 no
check failed, but some are unknown, for example because you lack a right; or an error.`

func (p *plugin) checkCommand() *cobra.Command {
	var before bool
	var output string
	of := check.Cluster{Release: release, Target: targetOf}
	c := &cobra.Command{
		Use: "check", Short: "Judge an installation, or a cluster before an installation", Long: checkLong, Args: noArguments,
		Example: `  kubectl metaparticle check --before
  kubectl metaparticle check --image registry.example/team/app:1`,
	}
	c.Flags().BoolVar(&before, "before", false, "judge a cluster before an installation")
	c.Flags().StringVar(&of.Image, "image", "", "an image that the webhook is to read")
	outputFlag(c, &output)
	c.RunE = p.runs(func(ctx context.Context, _ []string) (int, error) {
		if err := judgeOutput(output); err != nil {
			return exitError, err
		}
		opened, _, err := p.open()
		if err != nil {
			return exitError, err
		}
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		of.Client = opened
		if err := p.greet(ctx, &of); err != nil {
			return exitError, fmt.Errorf("the API server does not answer: %w", err)
		}
		judge := check.After
		if before {
			judge = check.Before
		}
		return tell(p.std.out, judge(ctx, of), output)
	})
	return c
}

// checkTimeout bounds the time of all checks together. If the webhook does not answer, a check
// takes as long as the timeout of the webhook: ten seconds.
const checkTimeout = time.Minute

// greet asks the API server for its version, and notes this version, the API server's time, and whether
// API Priority and Fairness has judged the request.
func (p *plugin) greet(ctx context.Context, of *check.Cluster) error {
	config, err := p.config()
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

// withoutRights makes one finding of all that a person may not read.
func withoutRights(findings []check.Finding) (all []check.Finding) {
	first := -1
	for _, f := range findings {
		switch {
		case !f.Forbidden:
			all = append(all, f)
		case first < 0:
			first, all = len(all), append(all, f)
		default:
			all[first].Check += ", " + f.Check
		}
	}
	return all
}

// tell writes the findings. The result is exitNot if one of the checks failed. Otherwise the result
// is exitError if the command could not do one of the checks.
func tell(out io.Writer, findings []check.Finding, output string) (int, error) {
	counts := map[check.Result]int{}
	for _, f := range findings {
		counts[f.Result]++
	}
	code := exitOK
	switch {
	case counts[check.Failed] > 0:
		code = exitNot
	case counts[check.Unknown] > 0:
		code = exitError
	}
	shown := func(text string) string { return inOneLine(strings.ReplaceAll(text, "\n", "; ")) }
	if output != "" {
		if output != "json" {
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
	for _, f := range withoutRights(findings) {
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
