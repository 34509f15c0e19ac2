// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/cmd/kubectl-metaparticle/check"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == guardName {
		guardMain() // TestGuard starts this program as the watchdog
	}
	testscript.Main(m, map[string]func(){"kubectl-metaparticle": main})
}

// TestInjectCommandChangesOrRefusesManifestsLikeWebhook runs the scripts of testdata with the
// program itself. Each script contains the input, the arguments, both outputs and the exit code.
// With -update the test rewrites the outputs.
//
// exits CODE ARGUMENT…   runs the program and requires the exit code
//
// The registry $REGISTRY contains the image app, whose command is "/app --all".
// In asks.yaml and in all outputs the registry is called registry.example.
func TestInjectCommandChangesOrRefusesManifestsLikeWebhook(t *testing.T) {
	images := serve(t)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("REGISTRY", images)
			return ask(env.WorkDir, images)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
	})
}

// exits implements the scripts' command "exits CODE ARGUMENT…". This command runs the program in
// the process of the test, and fails unless the program ends with the exit code. The scripts'
// command "cmp" can then compare the output.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE ARGUMENT…")
	}
	codes := map[string]int{"0": exitOK, "1": exitNot, "2": exitError}
	for i, arg := range args {
		if i > 1 && args[i-1] == "-f" && arg != "-" {
			args[i] = ts.MkAbs(arg)
		}
	}
	var out, errs bytes.Buffer
	code := run(context.Background(), args[1:], stdio{strings.NewReader(ts.ReadFile("stdin")), &out, &errs})
	clean := func(b bytes.Buffer) string {
		text := strings.ReplaceAll(b.String(), ts.MkAbs(".")+"/", "")
		return strings.ReplaceAll(text, ts.Getenv("REGISTRY"), "registry.example")
	}
	_, err := io.WriteString(ts.Stdout(), clean(out))
	ts.Check(err)
	_, err = io.WriteString(ts.Stderr(), clean(errs))
	ts.Check(err)
	if code != codes[args[0]] {
		ts.Fatalf("exit code %d, not %s\n%s%s", code, args[0], out.String(), errs.String())
	}
}

// ask puts the registry's address into a script's asks.yaml.
func ask(dir, images string) error {
	file := filepath.Join(dir, "asks.yaml")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(file, bytes.ReplaceAll(text, []byte("registry.example"), []byte(images)), 0o600)
}

// serve runs a registry with one image.
func serve(t *testing.T) string {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: "amd64", Config: v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"--all"}},
	})
	require.NoError(t, err)
	ref, err := name.ParseReference(host + "/app")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image))
	return host
}

func TestInjectCommandSaysWhenNothingClaimsASlot(t *testing.T) {
	const note = "nothing in the manifests claims a slot"
	for claim, changes := range map[string]bool{"": false, `metadata: {annotations: {metaparticle.io/singleton: "true"}}, `: true} {
		var out, errs bytes.Buffer
		manifest := `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: shop}, spec: {selector: {matchLabels: {app: a}}, ` +
			`template: {` + strings.Replace(claim, "metadata: {", "metadata: {labels: {app: a}, ", 1) + `spec: {containers: [{name: a, image: a, command: [a]}]}}}}`
		assert.Equal(t, exitOK, run(t.Context(), []string{"inject", "-f", "-", "-offline"}, stdio{strings.NewReader(manifest), &out, &errs}), errs.String())
		assert.Equal(t, changes, !strings.Contains(errs.String(), note), errs.String())
	}
}

func TestVersionOfAReleaseComesFromTheLinker(t *testing.T) {
	assert.NotEmpty(t, versionOfBuild())
	defer func(before string) { release = before }(release)
	release = "v1.2.3"
	var out bytes.Buffer
	assert.Equal(t, exitOK, run(t.Context(), []string{"version"}, stdio{os.Stdin, &out, io.Discard}))
	assert.Equal(t, "v1.2.3\n", out.String())
}

func TestCommandsRefuseTheNamespaceThatTheyDoNotHave(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere")
	for _, name := range wholeCluster {
		for _, args := range [][]string{{"-n", "shop"}, {"-n=shop"}, {"--namespace", "shop"}, {"--namespace=shop"}} {
			var out, errs bytes.Buffer
			assert.Equal(t, exitError, run(t.Context(), append([]string{name}, args...), stdio{os.Stdin, &out, &errs}), "%s %v", name, args)
			assert.Equal(t, "error: "+name+" acts on the whole cluster: leave out -n\n", errs.String(), "%v", args)
			assert.Empty(t, out.String(), "%s %v", name, args)
		}
	}
}

// The help of each command has an example, and is the same however a person asks.
func TestHelpOfEachCommandGoesToStandardOutput(t *testing.T) {
	var whole bytes.Buffer
	assert.Equal(t, exitOK, run(t.Context(), []string{}, stdio{os.Stdin, &whole, io.Discard}))
	for _, c := range commands() {
		first := ""
		for _, args := range [][]string{{c.Name(), "-h"}, {c.Name(), "x", "--help"}, {"help", c.Name()}} {
			var out, errs bytes.Buffer
			assert.Equal(t, exitOK, run(t.Context(), args, stdio{os.Stdin, &out, &errs}), args)
			assert.Empty(t, errs.String(), args)
			assert.Contains(t, out.String(), "\n  kubectl metaparticle "+c.Name(), args)
			first = cmp.Or(first, out.String())
			assert.Equal(t, first, out.String(), args)
		}
		assert.Regexp(t, `(?m)^  `+c.Name()+` +`+regexp.QuoteMeta(c.Short)+`$`, whole.String(), "the help of the plugin lists each command")
		assert.True(t, c.Name() == "version" || c.Example != "", c.Name())
		assert.Contains(t, rootExamples, "kubectl metaparticle "+c.Name())
	}
	var options bytes.Buffer
	assert.Equal(t, exitOK, run(t.Context(), []string{"options"}, stdio{os.Stdin, &options, io.Discard}))
	for _, flag := range []string{"--as ", "--context ", "--namespace ", "--request-timeout ", "--kubeconfig "} {
		assert.Contains(t, options.String(), flag)
	}
}

// commands returns the commands that a person sees in the help.
func commands() (all []*cobra.Command) {
	for _, c := range newPlugin(stdio{}).root().Commands() {
		if c.IsAvailableCommand() {
			all = append(all, c)
		}
	}
	return all
}

func TestCommandsAcceptWorkloadKindNamesLikeKubectl(t *testing.T) {
	for _, args := range [][]string{
		{"deploy/x"}, {"deployment", "x"}, {"deployments/x"}, {"deployments.apps/x"}, {"Deployment/x"},
	} {
		kind, name, err := target(args)
		require.NoError(t, err, "%v", args)
		assert.Equal(t, "Deployment x", kind+" "+name, "%v", args)
	}
}

func TestCommandsJudgeTheirArgumentsBeforeTheyConnect(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere")
	for line, said := range map[string]string{
		"explain":                                 "error: name a workload or a pod, such as deployment/biller",
		"explain service/x":                       `error: "service" is not a kind of workload that this command knows: name one of its pods, as pod/NAME`,
		"yield":                                   "error: name a workload or a pod, such as deployment/biller",
		"yield lock/":                             `error: "lock/": write KIND/NAME`,
		"pause":                                   "error: name a workload or a pod, such as deployment/biller",
		"pause -stop service/x":                   `error: "service" is not a kind`,
		"resume biller":                           `error: "biller": write KIND/NAME`,
		"status biller":                           `error: "biller": write KIND/NAME`,
		"forget":                                  "error: name the work and its key, as in once/schema 7",
		"forget once/schema":                      "error: name the work and its key, as in once/schema 7",
		"forget once/ 7":                          `error: "once/": write KIND/NAME`,
		"forget service/x 7":                      `error: "service" is not a kind`,
		"console x":                               `error: console takes no argument: leave out "x"`,
		"check x":                                 `error: check takes no argument: leave out "x"`,
		"injct":                                   `error: unknown command "injct" for "kubectl metaparticle": did you mean inject?`,
		"-n shop status":                          noCluster,
		"statsu":                                  `error: unknown command "statsu" for "kubectl metaparticle": did you mean status?`,
		"status -o yml":                           `error: -o is "yml": write one of table, wide, name, json, yaml, jsonpath=TEMPLATE`,
		"explain -o wide pod/x":                   `error: -o is "wide": write one of `,
		"status -v -o json":                       "error: -v has no other format: leave out -o",
		"status -A lock/x":                        `error: -A shows all slots of all namespaces: leave out "lock/x"`,
		"yield -timeout 10 lock/x":                `error: invalid argument "10" for "--timeout" flag: write a duration with its unit, such as 30s or 5m`,
		"pause -timeout -1s x":                    `error: invalid argument "-1s" for "--timeout" flag: write a duration`,
		"recover -floor 1e9":                      `error: invalid argument "1e9" for "--floor" flag: write the revision as a whole number`,
		"console -port http":                      `error: invalid argument "http" for "--port" flag: write the number of a port, such as 8080`,
		"inject -kubernetes 1.37":                 `error: invalid argument "1.37" for "--kubernetes" flag: write the minor version alone, such as 37 for 1.37`,
		"inject -registry-mirror docker.io":       `error: invalid argument "docker.io" for "--registry-mirror" flag: write REGISTRY=MIRROR, such as docker.io=mirror.example:5000`,
		"inject -registry-mirror a=http://m":      `error: invalid argument "a=http://m" for "--registry-mirror" flag: write the mirror as HOST[:PORT][/PATH], without http://`,
		"inject -plain-http-registry http://m":    `error: invalid argument "http://m" for "--plain-http-registry" flag: write HOST or HOST:PORT, without http://`,
		"inject -registry-network 10.1.0.0":       `error: invalid argument "10.1.0.0" for "--registry-network" flag: write a network with its prefix length, such as 10.0.0.0/8`,
		"inject -registry-ca testdata/absent.pem": `error: invalid argument "testdata/absent.pem" for "--registry-ca" flag: open testdata/absent.pem: `,
		"pause locks/x":                           `error: "locks" is not a kind of workload that this command knows: name one of its pods, as pod/NAME; or name lock/NAME, `,
		"pause lock/x y":                          `error: "lock/x y": write KIND/NAME`,
		"resume -A lock/x":                        "error: resume acts on one namespace: leave out -A, and name the namespace by -n",
		"recover -A":                              "error: recover acts on the whole cluster: leave out -A",
		"recover x":                               `error: recover takes no argument: leave out "x"`,
		"explain BadAnotation":                    `error: "BadAnotation" is no reason that this plugin knows: write KIND/NAME, as deployment/biller, or a reason, as ImageUnreadable`,
		"explain lock.a":                          `error: "lock.a" names no workload: name the workload or one of its pods, as deployment/biller or pod/NAME`,
		"explain lease/metaparticle-enroll":       `error: "lease" is not a kind of workload that this command knows`,
		"status lease/kube-scheduler":             `error: "lease" is not a kind of workload that this command knows`,
		"forget lease/lock.a":                     "error: name the work and its key, as in once/schema 7",
		"yield lock/x":                            noCluster,
		"yield singleton.deployment.biller":       noCluster,
		"pause lease/singleton.deployment.biller": noCluster,
		"resume leases lock.a":                    noCluster,
		"status rwlock.catalog":                   noCluster,
		"explain singleton.deployment.biller":     noCluster,
		"explain lease/once-revision.daemonset.a": noCluster,
		"forget once.schema 7":                    noCluster,
		"forget lease/shards.job.x.0 7":           noCluster,
		"forget lease/barrier.warm.12.0":          noCluster,
		"pause semaphore/pool":                    noCluster,
		"resume barrier/warm":                     noCluster,
		"status":                                  noCluster,
		"status pod x":                            noCluster,
		"explain deployment/x":                    noCluster,
		"forget once/schema 7":                    noCluster,
		"forget shards/job.x 7":                   noCluster,
		"forget shards/job.x.0 7":                 noCluster,
		"forget deployment/x 7":                   noCluster,
		"forget barrier/warm.12.0":                noCluster,
		"console":                                 noCluster,
		"check":                                   noCluster,
		"recover":                                 noCluster,
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), strings.Fields(line), stdio{os.Stdin, &out, &errs})
		assert.Equal(t, strings.HasPrefix(said, "refused: "), code == exitRefused, line)
		assert.Equal(t, strings.HasPrefix(said, "error: "), code == exitError, line)
		assert.True(t, strings.HasPrefix(errs.String(), said), "%s: %s", line, errs.String())
		assert.Equal(t, 1, strings.Count(errs.String(), "\n"), "%s: %s", line, errs.String())
		assert.Empty(t, out.String(), line)
	}
}

// noCluster is the output of a command that finds no cluster.
const noCluster = "error: no kubeconfig names a cluster: set KUBECONFIG, or name a file by --kubeconfig\n"

func TestErrorAboutAFlagPrintsNoHelp(t *testing.T) {
	for _, c := range commands() {
		var out, errs bytes.Buffer
		assert.Equal(t, exitError, run(t.Context(), []string{c.Name(), "--unknown"}, stdio{os.Stdin, &out, &errs}), c.Name())
		assert.Equal(t, "error: unknown flag: --unknown (-h for help)\n", errs.String(), c.Name())
		assert.Empty(t, out.String(), c.Name())
	}
}

func TestConnectionErrorsAppearOnlyOnceInALine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, []byte("{apiVersion: v1, kind: Config, current-context: gone}"), 0o600))
	var errs bytes.Buffer
	assert.Equal(t, exitError, run(t.Context(), []string{"status", "-kubeconfig", file}, stdio{os.Stdin, io.Discard, &errs}))
	assert.Regexp(t, `\Aerror: find the cluster: [^;\n]*\n\z`, errs.String())
}

// The page lists each command with its own flags, as the help does.
func TestReferencePageListsEachCommandAndFlag(t *testing.T) {
	const page, begin, end = "../../docs/reference/plugin.md", "<!-- commands -->\n", "<!-- /commands -->"
	var table strings.Builder
	table.WriteString("\n| command | what it does | flags |\n|---|---|---|\n")
	for _, c := range commands() {
		var flags []string
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			text := "`--" + f.Name + "`"
			if f.Shorthand != "" {
				text = "`-" + f.Shorthand + "`"
			}
			if f.Name != "help" {
				flags = append(flags, text)
			}
		})
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", strings.TrimSuffix(strings.ReplaceAll(c.Use, "|", "\\|"), " [flags]"), c.Short, strings.Join(flags, " "))
	}
	table.WriteString("\n")
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok)
	_, tail, ok := strings.Cut(rest, end)
	require.True(t, ok)
	want := head + begin + table.String() + end + tail
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, string(text), "rewrite the page with -update")
}

// completed returns what the program proposes for the last word of a command line.
func completed(t *testing.T, words ...string) string {
	t.Helper()
	var out bytes.Buffer
	require.Equal(t, exitOK, run(t.Context(), append([]string{cobra.ShellCompNoDescRequestCmd}, words...), stdio{os.Stdin, &out, io.Discard}))
	return out.String()
}

func TestCompletionProposesCommandsAndOutputFormats(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere")
	for line, proposed := range map[string]string{
		"re":                 "recover\nresume\n:4\n",
		"status -o j":        "wide\nname\njson\nyaml\njsonpath=\n:4\n",
		"inject -o ":         "yaml\ndiff\n:4\n",
		"inject -f ":         ".json",
		"inject --registry-": "--registry-ca",
		"yield --t":          "--to",
		"status -n ":         ":4\n",
		"status lock/":       ":4\n",
		"yield --to ":        ":4\n",
		"forget ":            ":4\n",
	} {
		if strings.HasPrefix(proposed, "-") || strings.HasPrefix(proposed, ".") {
			assert.Contains(t, completed(t, strings.Split(line, " ")...), strings.TrimPrefix(proposed, "."), line)
			continue
		}
		assert.Equal(t, proposed, completed(t, strings.Split(line, " ")...), line)
	}
}

func TestCompletionOfHoldAndOfReasons(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere")
	for line, proposed := range map[string]string{
		"explain AgentS":       "AgentSilent\n:4\n",
		"explain ":             ":4\n",
		"hold lock/a ":         "--\n:0\n",
		"hold lock/a -- ./mig": ":0\n",
	} {
		assert.Equal(t, proposed, completed(t, strings.Split(line, " ")...), line)
	}
}

func TestCheckCommandSaysOnceWhatAPersonMayNotRead(t *testing.T) {
	var out bytes.Buffer
	code, err := tell(&out, []check.Finding{
		{Check: "nodes", Result: check.Unknown, Says: "nodes is forbidden: no", Do: "ask for the right", Forbidden: true},
		{Check: "webhook", Result: check.OK, Says: "it answers"},
		{Check: "clocks", Result: check.Unknown, Says: "leases is forbidden: no", Do: "ask for the right", Forbidden: true},
	}, "")
	require.NoError(t, err)
	assert.Equal(t, exitError, code)
	assert.Equal(t, "unknown  nodes, clocks  nodes is forbidden: no\n                        → ask for the right\nok       webhook        it answers\n1 ok, 0 warning, 0 failed, 2 unknown\n", out.String())
}

func TestCompletionProposesPodsAndKeys(t *testing.T) {
	b := newByHand(append(team(nil), slotLease(api.OnceLease("schema"), "", map[string]string{api.DoneAnnotation: "7,$(id),`id`,-n,8\n:0"}), slotLease(api.OnceLease("odd"), "", map[string]string{api.DoneAnnotation: "$(id)"}),
		slotLease("shards.job.map.0", "", map[string]string{api.DoneAnnotation: "1-a"}),
		slotLease("once-revision.deployment.web", "", map[string]string{api.DoneAnnotation: "5d9c7b"}),
		waiting("d", "lock.other"))...)
	for _, c := range []struct {
		words proposes
		args  []string
		want  []string
	}{
		{successors, nil, []string{"b", "c", "d"}},
		{successors, []string{slot}, []string{"b", "c"}},
		{successors, []string{"lock/other"}, []string{"d"}},
		{works, nil, []string{"once/schema", "shards/job.map.0", "deployment/web"}},
		{works, []string{"once/schema"}, []string{"7"}},
		{works, []string{"deployment/web"}, []string{"5d9c7b"}},
		{works, []string{"shards/job.map.0"}, []string{"1-a"}},
		{targets, []string{"lock/a"}, nil},
	} {
		assert.ElementsMatch(t, c.want, c.words(t.Context(), nil, cluster{WithWatch: b}, "shop", c.args), "%v", c.args)
	}
}

// For each kind with the scope "namespace", a person can name a claim as KIND/NAME, and the
// completion proposes this text.
func TestCommandsAcceptClaimsOfEachNamespaceScopedKind(t *testing.T) {
	for _, kind := range api.Kinds() {
		slots := api.Claim{Kind: kind, Name: "a.b", Size: 12}.Slots(api.Workload{})
		if kind.Scope != api.ScopeNamespace || len(slots) == 0 {
			continue
		}
		name := kind.Name() + "/a.b"
		assert.Contains(t, slotsHelp, " "+kind.Name()+"/NAME")
		var there []client.Object
		for _, slot := range slots {
			assert.Equal(t, name, targetOf(slot))
			there = append(there, slotLease(slot, "", nil))
		}
		s, err := findSlots(t.Context(), cluster{WithWatch: newByHand(there...)}, "shop", []string{name})
		require.NoError(t, err)
		assert.Equal(t, slots, s.slots)
	}
}

func TestCompletionProposesArgumentsThatNameSlots(t *testing.T) {
	deployment := api.Workload{Group: "apps", Kind: "Deployment", Name: "till.v2"}
	b := newByHand(slotLease(api.LockLease("a.b"), "", nil), slotLease(api.ElectionLease("main"), "", nil),
		slotLease(api.OnceLease("schema"), "", nil), slotLease(api.StartLockLease("db"), "", nil),
		slotLease(api.SemaphoreLease("pool", 0), "", nil), slotLease(api.SemaphoreLease("pool", 1), "", nil),
		slotLease(api.SingletonLease(deployment, ""), "", nil), slotLease(api.ShardLease(api.ShardGroup(deployment), 3), "", nil),
		slotLease(api.SingletonLease(api.Workload{Group: "argoproj.io", Kind: "Rollout", Name: "x"}, ""), "", nil),
		slotLease(api.Barrier{Name: "warm.a", Size: 1}.Leases("0a-1")[0], "", nil), slotLease("next.lock.a", "", nil), leaseOf("foreign"),
		slotLease(api.RWLockLease("catalog", 3), "", nil), slotLease(api.IntentLease("catalog"), "", nil))
	proposed := targets(t.Context(), nil, cluster{WithWatch: b}, "shop", nil)
	slices.Sort(proposed)
	proposed = slices.Compact(proposed)
	assert.Equal(t, []string{
		"barrier/warm.a", "deployment/till.v2", "election/main", "lock/a.b", "once/schema", "rwlock/catalog", "semaphore/pool", "start-lock/db",
	}, proposed)
	for _, target := range proposed {
		if target == "deployment/till.v2" {
			continue // the fake cluster has no Deployment
		}
		s, err := findSlots(t.Context(), cluster{WithWatch: b}, "shop", []string{target})
		require.NoError(t, err, target)
		assert.NotEmpty(t, s.slots, target)
	}
}

func TestCheckCommandPrintsFindingsAndRemedies(t *testing.T) {
	findings := []check.Finding{
		{Check: "nodes", Result: check.OK, Says: "3 of 3 nodes"}, {Check: "webhook", Result: check.Warning, Says: "one replica", Do: "scale it"},
	}
	for output, shown := range map[string]string{
		"":     "ok       nodes    3 of 3 nodes\nwarning  webhook  one replica\n                  → scale it\n1 ok, 1 warning, 0 failed, 0 unknown\n",
		"json": "{\n  \"checks\": [\n    {\n      \"check\": \"nodes\",\n      \"result\": \"ok\",\n      \"says\": \"3 of 3 nodes\"\n    },\n    {\n      \"check\": \"webhook\",\n      \"result\": \"warning\",\n      \"says\": \"one replica\",\n      \"do\": \"scale it\"\n    }\n  ]\n}\n",
		"yaml": "checks:\n- check: nodes\n  result: ok\n  says: 3 of 3 nodes\n- check: webhook\n  do: scale it\n  result: warning\n  says: one replica\n",
	} {
		var out bytes.Buffer
		code, err := tell(&out, findings, output)
		require.NoError(t, err)
		assert.Equal(t, exitOK, code, "a warning is no failure")
		assert.Equal(t, shown, out.String())
	}
	for _, c := range []struct {
		result check.Result
		more   []check.Finding
		code   int
	}{
		{check.Failed, nil, exitNot}, {check.Unknown, nil, exitError}, {check.Unknown, []check.Finding{{Result: check.Failed}}, exitNot},
	} {
		findings[1].Result = c.result
		for _, output := range []string{"", "json"} {
			code, err := tell(new(bytes.Buffer), append(findings, c.more...), output)
			require.NoError(t, err)
			assert.Equal(t, c.code, code, c)
		}
	}
}
