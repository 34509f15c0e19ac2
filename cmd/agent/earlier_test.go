// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/agent/gated"
	"github.com/metaparticle-io/metaparticle/api"
)

// earlierPods returns the pods that the webhook of version 0.1.0 made (go doc ./tools/earlier).
func earlierPods(t *testing.T) map[string]*corev1.Pod {
	t.Helper()
	archive, err := txtar.ParseFile("../../tools/earlier/testdata/v0.1.0/pods.txtar")
	require.NoError(t, err)
	pods := map[string]*corev1.Pod{}
	for _, f := range archive.Files {
		if !strings.HasSuffix(f.Name, "/patched.yaml") || f.Name == "marks-kept/patched.yaml" { // a person wrote this gate
			continue
		}
		pod := new(corev1.Pod)
		require.NoError(t, yaml.Unmarshal(f.Data, pod))
		pods[filepath.Dir(f.Name)] = pod
	}
	require.NotEmpty(t, pods)
	return pods
}

// expanded returns the words of a container as its process gets them.
func expanded(words []string, env map[string]string) (out []string) {
	for _, word := range words {
		word = strings.ReplaceAll(word, "$$", "\x00")
		for name, value := range env {
			word = strings.ReplaceAll(word, "$("+name+")", value)
		}
		out = append(out, strings.ReplaceAll(word, "\x00", "$"))
	}
	return out
}

// roles has a function for each role whose arguments a webhook writes. The function parses these
// arguments.
var roles = map[string]func(args []string, env map[string]string) error{
	api.RunRole: func(args []string, env map[string]string) error {
		s, err := parseRun(args, func(key string) string { return env[key] })
		c := s.config
		if c.PodName == "" || c.PodUID == "" || c.PodIP == "" || s.namespace == "" || len(c.Slots) == 0 || len(c.Containers) == 0 {
			return errors.Join(err, errors.New("the agent lacks a fact"))
		}
		return err
	},
	api.ExecRole: func(args []string, _ map[string]string) error {
		_, err := gated.ShimConfig(args)
		return err
	},
	api.ProbeRole: func(args []string, _ map[string]string) error {
		_, _, err := api.ParseProbeArgs(args)
		return err
	},
}

func TestAgentAcceptsArgumentsOfAnEarlierWebhookVersion(t *testing.T) {
	seen := map[string]int{}
	for name, pod := range earlierPods(t) {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			env := map[string]string{}
			for _, e := range c.Env {
				env[e.Name] = "of-the-pod"
			}
			var lines [][]string
			switch {
			case c.Name == api.AgentContainer, c.Name == api.TurnContainer, c.Name == api.WaitContainer:
				lines = append(lines, append([]string{api.AgentProgram}, expanded(c.Args, env)...))
			case api.IsShim(c.Command):
				lines = append(lines, expanded(append(slices.Clone(c.Command), c.Args...), env))
			}
			for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
				if p != nil && p.Exec != nil && p.Exec.Command[0] == api.ShimProgram {
					lines = append(lines, p.Exec.Command)
				}
			}
			if l := c.Lifecycle; l != nil && l.PostStart != nil && l.PostStart.Exec != nil && l.PostStart.Exec.Command[0] == api.AgentProgram {
				lines = append(lines, l.PostStart.Exec.Command)
			}
			for _, line := range lines {
				role := line[1]
				seen[role]++
				require.True(t, commands[role] != nil || shimRoles[role] != nil, "%s: %s", name, role)
				if parse := roles[role]; parse != nil {
					assert.NoError(t, parse(line[2:], env), "%s: %s", name, line)
				} else {
					assert.Len(t, line, 2, "%s: the role %s has no arguments", name, role)
				}
			}
		}
	}
	for _, role := range []string{api.RunRole, api.ExecRole, api.ProbeRole, api.InstallRole, api.TurnRole, api.WaitRole} {
		assert.NotZero(t, seen[role], role)
	}
}
