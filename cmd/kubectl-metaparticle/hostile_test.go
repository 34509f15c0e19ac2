// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/cmd/kubectl-metaparticle/check"
)

// hostile is a text by which a tenant forges lines, or reverses the letters of a line.
const hostile = "x\nforged: all is well\u2028forged\u2029forged\r\nforged\x1b[2J\u202eforged\t::error::forged\n::error::forged\n##[error]forged"

// isHarmless asserts that no line begins with a forged text, and that no line contains a dangerous
// character.
func isHarmless(t *testing.T, text string) {
	t.Helper()
	assert.Contains(t, text, "forged", "the text is shown")
	for line := range strings.SplitSeq(text, "\n") {
		assert.NotRegexp(t, `^\s*(forged|::)|##\[`, line)
	}
	for _, r := range text {
		assert.False(t, unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp), "%U", r)
	}
}

// evilLease returns a Lease whose annotations and whose holder's identity are hostile texts.
func evilLease(name string) *coordinationv1.Lease {
	l := slotLease(name, "a", map[string]string{
		api.TokenAnnotation: hostile, api.HoldAnnotation: hostile, api.DoneAnnotation: hostile,
		api.SuccessorAnnotation: hostile, api.WorkloadAnnotation: hostile, api.FailuresAnnotation: hostile + "=1",
	})
	l.Spec.HolderIdentity = new(hostile + "_uid")
	return l
}

func TestCommandsPrintHostileTextsOnSingleLines(t *testing.T) {
	speaks := func(name string, status corev1.ConditionStatus, reason string) *corev1.Pod {
		return edited(waiting(name, "lock.x"), func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: api.ReadyCondition, Status: status, Reason: reason, Message: hostile}}
		})
	}
	hold := func(t *testing.T, b *byHand) {
		l := b.lease(t, "lock.x")
		l.Annotations, l.Spec = slotLease("lock.x", "a", nil).Annotations, slotLease("lock.x", "a", nil).Spec
		require.NoError(t, b.Update(t.Context(), l))
	}
	for name, run := range map[string]func(t *testing.T, b *byHand){
		"status":    func(t *testing.T, b *byHand) { b.status(t, screen{output: "wide"}, "shop") },
		"status -v": func(t *testing.T, b *byHand) { b.status(t, screen{words: true}, "shop") },
		"pause":     func(t *testing.T, b *byHand) { b.pause(t, pausing{pause: api.PauseHold}, "lock/x") },
		"pause --stop": func(t *testing.T, b *byHand) {
			b.pause(t, pausing{pause: api.PauseStop, timeout: time.Second}, "lock/x")
		},
		"yield": func(t *testing.T, b *byHand) { b.yield(t, yielding{}, "lock/x") },
		"yield to a pod that waits for its turn": func(t *testing.T, b *byHand) {
			hold(t, b)
			b.yield(t, yielding{}, "lock/x")
		},
		"yield --to": func(t *testing.T, b *byHand) {
			hold(t, b)
			b.yield(t, yielding{to: "runs"}, "lock/x")
		},
		"forget": func(t *testing.T, b *byHand) {
			b.exitCode(t, func(std stdio, c cluster) (int, error) {
				return forget(t.Context(), c, "shop", []string{"once/schema", "7"}, std)
			})
		},
		"explain": func(t *testing.T, b *byHand) {
			b.exitCode(t, func(std stdio, c cluster) (int, error) {
				return explain(t.Context(), &explainer{cluster: c, namespace: "shop", now: noon}, std.out, "", "Pod", "owned")
			})
		},
		"recover": func(t *testing.T, b *byHand) {
			w := newRestored(t, 5000, evilLease("lock.x"))
			w.recover(4000, func(r *recovering) { r.timeout = time.Second })
			b.out, b.err = w.out, w.err
		},
		"check": func(t *testing.T, b *byHand) {
			_, err := tell(&b.out, []check.Finding{{Check: "pods", Result: check.Failed, Says: hostile, Do: hostile}}, "")
			require.NoError(t, err)
		},
		"an error": func(_ *testing.T, b *byHand) { exitCode(exitError, fmt.Errorf("read: %s", hostile), &b.err) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				owned := plainPod("owned", map[string]string{api.LockAnnotation: "x"})
				owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "x/v1", Kind: "K" + hostile, Name: hostile, Controller: new(true)}}
				done := slotLease("once.schema", "", map[string]string{api.DoneAnnotation: hostile})
				b := newByHand(evilLease("lock.x"), done, owned, waiting("a", "lock.x"), speaks("runs", corev1.ConditionTrue, api.ReasonChildRunning),
					speaks("turns", corev1.ConditionTrue, api.ReasonWaitsForItsTurn),
					&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, told(time.Minute, hostile, api.ReasonReleased, "lock.x "+hostile))
				run(t, b)
				isHarmless(t, b.out.String()+b.err.String())
			})
		})
	}
}

// writers are the functions that may write to an output. The function "say" writes lines, and
// each other function writes a usage, an object as JSON or YAML, or cells that [inOneLine] has
// cleaned.
var writers = []string{"say", "row", "tell", "write", "show", "encoded", "usage"}

func TestPluginCommandsPrintOnlyThroughListedFunctions(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, declared := range file.Decls {
			function, ok := declared.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(function, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Fprint") {
					assert.Contains(t, writers, function.Name.Name, "write the line by the function say")
				}
				return true
			})
		}
	}
}

func TestCommandsReplaceFormatCharactersExceptInVerbatimOutput(t *testing.T) {
	const family = "👩\u200d👧"
	var out bytes.Buffer
	std := stdio{nil, &out, &out}.harmless()
	for _, w := range []io.Writer{std.out, verbatim(std.out)} {
		n, err := io.WriteString(w, family+"\u202e\u2028\x1b\r\n")
		require.NoError(t, err)
		assert.Equal(t, len(family)+9, n)
	}
	assert.Equal(t, "👩?👧????\n"+family+"\u202e\u2028?\n", out.String())
}

// manifestOf returns the manifest of a Pod without a command. So the command "inject" must read the
// image.
func manifestOf(image string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {metaparticle.io/lock: a}}, spec: {containers: [{name: a, image: %q}]}}", image)
}

// injectFrom runs the command "inject" on a manifest, and returns both outputs.
func injectFrom(t *testing.T, manifest string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	run(t.Context(), append([]string{"inject", "-f", "-"}, args...), stdio{strings.NewReader(manifest), &out, &out}.harmless())
	return out.String()
}

// The program patch would change the file that a forged header names.
func TestNameInManifestForgesNoFileHeader(t *testing.T) {
	const name = "x)\n--- /home/me/.bashrc\n+++ /home/me/.bashrc\n@@ -1,0 +1,1 @@\n+evil\n"
	const containers = `"spec": {"containers": [{"name": "a", "image": "a", "command": ["a"]}]}`
	const annotations = `"annotations": {"metaparticle.io/lock": "a"}`
	for kind, manifest := range map[string]string{
		"Deployment": fmt.Sprintf(`{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": %q, %s}, "spec": {"template": {%s}}}`, name, annotations, containers),
		"Pod":        fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": %q, %s}, %s}`, name, annotations, containers),
	} {
		for _, options := range [][]string{{"-o", "diff"}, {"-o", "diff", "--pods"}, {"--pods"}} {
			said := injectFrom(t, manifest, append([]string{"--offline"}, options...)...)
			assert.Contains(t, said, "metaparticle.io/lock", "%s %v", kind, options)
			assert.NotRegexp(t, `(?m)^(---|\+\+\+) /home/me`, said, "%s %v", kind, options)
		}
	}
}

func TestInjectCommandPrintsRegistryAnswerOnOneLine(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":%q}]}`, strings.Repeat("long ", 1000))
		fmt.Fprintln(w, strings.ReplaceAll(hostile, "\x1b", ""))
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	said := injectFrom(t, manifestOf(host+"/x"), "--plain-http-registry", host)
	assert.Regexp(t, `\Aimage [^\n]*\nrefused: [^\n]*\nnote: [^\n]*\n\z`, said)
	assert.Less(t, len(said), 2000)

	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, hostile)
	})
	isHarmless(t, injectFrom(t, manifestOf(host+"/x"), "--plain-http-registry", host))
}

func TestInjectCommandRefusesHostileNamesOnOneLine(t *testing.T) {
	manifest := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q, "annotations": {"metaparticle.io/lock": "a"}},
"spec": {"containers": [{"name": "a", "image": "a", "command": ["a"]}]}}`, "x\nforged: yes")
	assert.Regexp(t, `\Arefused: Pod/x\?forged: yes: [^\n]*\n\z`, injectFrom(t, manifest, "--offline", "-o", "diff"))
}

func TestRegistryCannotRedirectInjectCommandToLocalhost(t *testing.T) {
	var config net.ListenConfig
	inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(inner.Addr().String())
	require.NoError(t, err)
	at := "https://localhost:" + port + "/secret"
	var connections atomic.Int32
	secret := &httptest.Server{Listener: inner, Config: &http.Server{ErrorLog: log.New(io.Discard, "", 0), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}}}
	secret.StartTLS()
	defer secret.Close()
	for name, answer := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				http.Redirect(w, r, at, http.StatusTemporaryRedirect)
			}
		},
		"realm": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+at+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			host := strings.TrimPrefix(server.URL, "http://")
			connections.Store(0)
			assert.Contains(t, injectFrom(t, manifestOf(host+"/x"), "--plain-http-registry", host), "--registry-network")
			assert.Zero(t, connections.Load())
			injectFrom(t, manifestOf(host+"/x"), "--plain-http-registry", host, "--registry-network", "127.0.0.0/8")
			assert.NotZero(t, connections.Load())
		})
	}
}

func TestStatusCommandIgnoresEventsOfOtherAuthors(t *testing.T) {
	forged := told(time.Second, "mallory", api.ReasonAcquired, "this pod holds lock.x (token 1)")
	forged.Source.Component = "mallory"
	about := told(2*time.Second, "mallory", api.ReasonAcquired, "this pod holds lock.x (token 2)")
	about.InvolvedObject.Kind = "Job"
	b := newByHand(slotLease("lock.x", "", nil), forged, about, told(time.Minute, "a", api.ReasonAcquired, "this pod holds lock.x (token 1)"))
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
	assert.NotContains(t, b.out.String(), "mallory")
	assert.Contains(t, b.out.String(), "handover  a")
}
