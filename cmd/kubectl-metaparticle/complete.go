// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// completer is the name under which kubectl calls this program to complete a command line
// (kubectl help plugin). The last argument is the word that the person is writing.
const completer = "kubectl_complete-metaparticle"

// completeTimeout bounds the time for which a person waits after the tab key.
const completeTimeout = 2 * time.Second

// The last line of the output tells the shell whether to propose files.
const (
	// onlyThese means that the shell proposes no file.
	onlyThese = ":4"
	// files means that the shell proposes files.
	files = ":0"
)

// complete proposes words for the last argument of the command line. If the last argument is also
// the first one, complete proposes the commands. If the cluster does not answer, complete proposes
// no names from the cluster.
func complete(ctx context.Context, commands, args []string, out io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	last, before := "", args
	if len(args) > 0 {
		last, before = args[len(args)-1], args[:len(args)-1]
	}
	previous := ""
	if len(before) > 0 {
		previous = before[len(before)-1]
	}
	var words []string
	directive := onlyThese
	switch {
	case len(before) == 0:
		words = commands
	case (previous == "-n" || previous == "--namespace") && !slices.Contains(wholeCluster, before[0]):
		words = namespaces(ctx, before)
	case previous == "-o":
		words = []string{"json", "yaml"}
		if before[0] == "inject" {
			words = []string{"yaml", "diff"}
		}
	case slices.Contains([]string{"-f", "--kubeconfig", "--registry-ca", "-registry-ca"}, previous):
		directive = files
	case strings.HasPrefix(previous, "-") && !slices.Contains([]string{"-w", "--watch", "--stop"}, previous):
		// The last word is the value of another flag, such as --to. In this case complete proposes
		// nothing.
	case slices.Contains([]string{"explain", "status", "yield", "pause", "resume"}, before[0]):
		words = targets(ctx, before)
	}
	for _, word := range words {
		if strings.HasPrefix(word, last) {
			say(out, "%s", word)
		}
	}
	say(out, "%s", directive)
}

// connect opens the cluster that the flags of the command line name.
func connect(args []string) (cluster, string, error) {
	flags, connection := newNamespaceFlags("complete", "", stdio{nil, io.Discard, io.Discard})
	known := []string{}
	for i, arg := range args {
		if slices.Contains([]string{"-n", "--namespace", "--context", "--kubeconfig"}, arg) && i+1 < len(args) {
			known = append(known, arg, args[i+1])
		}
	}
	opened, namespace, _, err := connection.begin(flags, known, func([]string) error { return nil })
	return opened, namespace, err
}

func namespaces(ctx context.Context, args []string) (words []string) {
	c, _, err := connect(args[:len(args)-1])
	var list corev1.NamespaceList
	if err != nil || c.List(ctx, &list) != nil {
		return nil
	}
	for _, n := range list.Items {
		words = append(words, n.Name)
	}
	return words
}

// targets returns the slots of the namespace, as a person names them.
func targets(ctx context.Context, args []string) []string {
	c, namespace, err := connect(args)
	if err != nil {
		return nil
	}
	return c.targets(ctx, namespace)
}

func (c cluster) targets(ctx context.Context, namespace string) (words []string) {
	var leases coordinationv1.LeaseList
	if c.List(ctx, &leases, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}) != nil {
		return nil
	}
	for _, l := range leases.Items {
		if !api.IsSlot(l.Name) {
			continue
		}
		if word := targetOf(l.Name); word != "" {
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// targetOf returns the argument that names the slot: KIND/NAME of a workload, or of the claim. The
// result is empty if the workload is of a kind that is not in [kindsByName].
func targetOf(slot string) string {
	kind, rest, _ := strings.Cut(slot, ".")
	switch run := api.RunOf(slot); {
	case run != "":
		return kind + "/" + rest[:strings.LastIndex(rest, "."+run+".")]
	case api.AnyOne(slot) || api.IsRWLockSlot(slot):
		rest = rest[:strings.LastIndexByte(rest, '.')]
	}
	if api.ScopeOf(slot) == api.ScopeNamespace {
		return kind + "/" + rest
	}
	workload, name, named := strings.Cut(rest, ".")
	if !named || kindsByName[workload] == "" {
		return ""
	}
	return workload + "/" + name
}
