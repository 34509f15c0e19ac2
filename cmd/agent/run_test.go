// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/podgate"
	"github.com/metaparticle-io/metaparticle/agent/proxy"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestAgentSidecarReadsItsArgumentsAndEnvironment(t *testing.T) {
	env := map[string]string{
		api.PodNameEnv: "biller-1", api.PodUIDEnv: "u", api.PodIPEnv: "10.0.0.1", api.PodNamespaceEnv: "shop",
	}
	s, err := parseRun([]string{
		"-slots=lock.a,singleton.deployment.biller", "-lease-duration=1m0s", "-readiness=holder",
		"-containers=app,helper", "-init-containers=migrate", "-workload=Deployment/biller", "-ports=80,6379",
		`-probes={"app":{"startup":{"exec":{"command":["a"]},"timeoutSeconds":1,"periodSeconds":2,"successThreshold":3,"failureThreshold":4}}}`,
	}, func(key string) string { return env[key] })
	require.NoError(t, err)
	assert.Equal(t, "shop", s.namespace)
	assert.Equal(t, []string{"lock.a", "singleton.deployment.biller"}, s.config.Slots)
	assert.Equal(t, []string{"app", "helper"}, s.config.Containers)
	assert.Equal(t, []string{"migrate"}, s.config.InitContainers)
	assert.Equal(t, api.Ports{{Number: 80}, {Number: 6379}}, s.config.Ports)
	assert.Equal(t, map[string]api.Probes{"app": {Startup: &api.Probe{
		Handler:        api.Handler{Exec: &api.ExecAction{Command: []string{"a"}}},
		TimeoutSeconds: 1, PeriodSeconds: 2, SuccessThreshold: 3, FailureThreshold: 4,
	}}}, s.config.Probes)
	assert.Equal(t, time.Minute, s.config.LeaseDuration)
	assert.Equal(t, api.ReadinessHolder, s.config.Readiness)
	assert.Equal(t, "biller-1", s.config.PodName)
	assert.Equal(t, api.RunPath, s.RunDir)
}

func TestLabelOfThePodDecidesWhetherItIsPreferred(t *testing.T) {
	for _, c := range []struct {
		arg, label string
		want       agent.Prefers
	}{
		{"-own-kernel", "", agent.PrefersNobody},
		{"-own-kernel", "a", agent.PrefersNobody},
		{"-prefer=topology.kubernetes.io/zone=a", "a", agent.PrefersSelf},
		{"-prefer=topology.kubernetes.io/zone=a", "A", agent.PrefersOthers},
		{"-prefer=topology.kubernetes.io/zone=a", "", agent.PrefersOthers},
	} {
		s, err := parseRun([]string{"-slots=lock.a", c.arg}, func(key string) string {
			return map[string]string{api.PreferEnv: c.label}[key]
		})
		require.NoError(t, err)
		assert.Equal(t, c.want, s.config.Preferred, "%s %q", c.arg, c.label)
	}
}

func TestStandbyNeverForwardsToServiceOfItsNamespace(t *testing.T) {
	s, err := parseRun([]string{"-slots=lock.a"}, func(string) string { return "10.0.0.1" })
	require.NoError(t, err)
	f := proxy.New(forwarding(s.config, []string{"HOME=/", "TILL_SERVICE_HOST=10.96.0.7", "TILL_SERVICE_PORT=80", "KUBERNETES_SERVICE_HOST=10.0.0.2"}))
	for _, address := range []string{"10.0.0.1", "10.96.0.7"} {
		assert.ErrorContains(t, f.Reachable(t.Context(), address), "no target", address)
	}
	assert.NoError(t, f.Reachable(t.Context(), "10.0.0.2"))
}

func TestGatesWithoutShimsHaveOnlyOneStandIn(t *testing.T) {
	for _, name := range []string{"pod", "readiness"} {
		s, err := parseRun([]string{"-slots=a", "-containers=app,helper", "-gate=" + name}, func(string) string { return "" })
		require.NoError(t, err)
		assert.Equal(t, []string{podgate.Container}, s.config.Containers, name)
	}
	s, err := parseRun([]string{"-slots=a", "-containers=app,helper"}, func(string) string { return "" })
	require.NoError(t, err)
	assert.Equal(t, []string{"app", "helper"}, s.config.Containers)
}

func TestAgentPassesEachArgumentToItsConfig(t *testing.T) {
	args := api.DefaultRunArgs()
	args.Any, args.OwnKernel, args.ReplacesUnready, args.Ends = true, true, true, true
	args.Slots, args.Containers, args.InitContainers = []string{"lock.a"}, []string{"app"}, []string{"migrate"}
	args.Readiness, args.OnBusy, args.Job, args.OnceKey = api.ReadinessHolder, api.OnBusySkip, "job", "key"
	args.LeaseDuration, args.WaitAtMost, args.Grace = time.Minute, time.Hour, 7*time.Second
	args.MinReady, args.EndpointDelay = 8*time.Second, 9*time.Second
	args.YieldAfter, args.Failsafe = 10*time.Second, api.Failsafe{Outage: 11 * time.Minute, Alone: true}
	args.Workload, args.Revision = "Deployment/web", api.Revision{Workload: "u", Number: 2, Hash: "h"}
	args.Ports, args.Probes = api.Ports{{Number: 80}}, map[string]api.Probes{"app": {}}
	s, err := parseRun(args.Args()[1:], func(string) string { return "" })
	require.NoError(t, err)
	from, to := reflect.ValueOf(args), reflect.ValueOf(s.config)
	for _, field := range reflect.VisibleFields(from.Type()) {
		if into, ok := to.Type().FieldByName(field.Name); !ok || into.Type != field.Type || len(field.Index) > 1 {
			continue // the settings go as a whole
		}
		value := from.FieldByName(field.Name)
		assert.False(t, value.IsZero(), "set %s in this test", field.Name)
		assert.Equal(t, value.Interface(), to.FieldByName(field.Name).Interface(), field.Name)
	}
}
