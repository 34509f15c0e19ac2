// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// completeTimeout bounds the time for which a person waits after the tab key.
const completeTimeout = 2 * time.Second

// proposes returns the words from the cluster that can stand after the arguments.
type proposes func(ctx context.Context, p *plugin, c cluster, namespace string, args []string) []string

// completion proposes those words that begin as the person has begun. Without an answer of the cluster
// there are none.
func (p *plugin) completion(words proposes) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(c.Context(), completeTimeout)
		defer cancel()
		opened, namespace, err := p.open()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all := words(ctx, p, opened, namespace, args)
		all = slices.DeleteFunc(all, func(word string) bool { return !strings.HasPrefix(word, begun) })
		slices.Sort(all)
		return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag proposes values of a flag. Cobra refuses only a second function for one flag.
func (p *plugin) completeFlag(c *cobra.Command, flag string, words proposes) {
	_ = c.RegisterFlagCompletionFunc(flag, p.completion(words))
}

func namespaces(ctx context.Context, _ *plugin, c cluster, _ string, _ []string) (words []string) {
	var list corev1.NamespaceList
	if c.List(ctx, &list) != nil {
		return nil
	}
	for _, n := range list.Items {
		words = append(words, n.Name)
	}
	return words
}

func contexts(_ context.Context, p *plugin, _ cluster, _ string, _ []string) []string {
	raw, err := p.kube.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return nil
	}
	return slices.Collect(maps.Keys(raw.Contexts))
}

// targets returns the slots of the namespace, as a person names them.
func targets(ctx context.Context, _ *plugin, c cluster, namespace string, args []string) (words []string) {
	if len(args) > 0 {
		return nil
	}
	for _, l := range c.slots(ctx, namespace) {
		if word := targetOf(l.Name); word != "" {
			words = append(words, word)
		}
	}
	return words
}

// slots returns the Leases of slots in the namespace; none after an error.
func (c cluster) slots(ctx context.Context, namespace string) []coordinationv1.Lease {
	var leases coordinationv1.LeaseList
	if c.List(ctx, &leases, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}) != nil {
		return nil
	}
	return slices.DeleteFunc(leases.Items, func(l coordinationv1.Lease) bool { return !api.IsSlot(l.Name) })
}

// targetsOrReasons proposes, beside targets, the names of reasons, once a person has begun one.
func (p *plugin) targetsOrReasons(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 || begun == "" || !unicode.IsUpper(rune(begun[0])) {
		return p.completion(targets)(c, args, begun)
	}
	var words []string
	for _, known := range explanations {
		if name := string(known.Reason); strings.HasPrefix(name, begun) && !slices.Contains(words, name) {
			words = append(words, name)
		}
	}
	slices.Sort(words)
	return words, cobra.ShellCompDirectiveNoFileComp
}

// locksThenCommand proposes the locks of the namespace, then two dashes, and leaves the command behind them to the shell.
func (p *plugin) locksThenCommand(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch {
	case len(args) > 0 && begun == "": // cobra does not tell whether the dashes are there already
		return []string{"--"}, cobra.ShellCompDirectiveDefault
	case len(args) > 0:
		return nil, cobra.ShellCompDirectiveDefault
	}
	return p.completion(func(ctx context.Context, p *plugin, c cluster, namespace string, args []string) []string {
		return slices.DeleteFunc(targets(ctx, p, c, namespace, args), func(word string) bool { return !strings.HasPrefix(word, api.Lock.Name()+"/") })
	})(c, args, begun)
}

// successors returns the pods that can hold next: with a slot, those that stand by for it.
func successors(ctx context.Context, _ *plugin, c cluster, namespace string, args []string) (words []string) {
	var pods corev1.PodList
	if c.List(ctx, &pods, client.InNamespace(namespace), gatedPods) != nil {
		return nil
	}
	named := func(corev1.Pod) bool { return true }
	if len(args) > 0 {
		if s, err := findSlots(ctx, c, namespace, args); err == nil {
			named = func(pod corev1.Pod) bool { return slices.ContainsFunc(view.Claimed(pod), s.has) }
		}
	}
	held := map[string]bool{}
	for _, l := range c.slots(ctx, namespace) {
		held[view.HolderOf(&l)] = true
	}
	for _, pod := range pods.Items {
		if named(pod) && unfit(pod, nil) == "" && !held[view.IdentityOf(pod)] {
			words = append(words, pod.Name)
		}
	}
	return words
}

// works returns what "forget" can forget: work with done keys and open barriers, and then the keys.
func works(ctx context.Context, _ *plugin, c cluster, namespace string, args []string) (words []string) {
	for _, l := range c.slots(ctx, namespace) {
		// Bash executes a word such as $(id), if the completion of kubectl is older than 1.33. Who may patch a
		// Lease writes such a key.
		done := slices.DeleteFunc(api.Done(l.Annotations[api.DoneAnnotation]).Keys(), func(key string) bool { return !api.IsKey(key) })
		word := strings.Replace(l.Name, ".", "/", 1)
		if _, _, shard := api.ReadShard(l.Name); !shard && !strings.HasPrefix(l.Name, "once.") && len(done) > 0 {
			word = targetOf(l.Name)
		}
		switch {
		case len(args) == 0 && (len(done) > 0 || l.Annotations[api.OpenedAnnotation] != ""):
			words = append(words, word)
		case len(args) == 1 && (args[0] == word || args[0] == targetOf(l.Name) || leaseOfWork(args[0]) == l.Name):
			words = append(words, done...)
		}
	}
	return words
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
