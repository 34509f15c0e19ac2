// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// openAPI is the part of docs/reference/openapi.json that the tests compare with the handlers.
type openAPI struct {
	Servers []struct {
		URL string `json:"url"`
	} `json:"servers"`
	// Paths has a map for each path. The keys of that map are methods, or the word "parameters".
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Parameters map[string]parameter `json:"parameters"`
		Schemas    map[string]schema    `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	Parameters []parameter               `json:"parameters"`
	Responses  map[string]map[string]any `json:"responses"`
}

type parameter struct {
	Name   string `json:"name"`
	In     string `json:"in"`
	Schema schema `json:"schema"`
}

type schema struct {
	Ref        string            `json:"$ref"`
	Type       string            `json:"type"`
	Enum       []string          `json:"enum"`
	Required   []string          `json:"required"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
}

func readOpenAPI(t *testing.T) (doc openAPI) {
	t.Helper()
	text, err := os.ReadFile("../../docs/reference/openapi.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &doc))
	return doc
}

// operations returns each operation in docs/reference/openapi.json, by the operation's method and path.
func (doc openAPI) operations(t *testing.T) map[string]operation {
	t.Helper()
	found := map[string]operation{}
	for path, methods := range doc.Paths {
		for method, text := range methods {
			if method == "parameters" {
				continue
			}
			var o operation
			require.NoError(t, json.Unmarshal(text, &o))
			found[strings.ToUpper(method)+" "+path] = o
		}
	}
	require.NotEmpty(t, found)
	return found
}

// source parses the package without its tests.
func source(t *testing.T) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		files = append(files, file)
	}
	require.NotEmpty(t, files)
	return files
}

// words returns the string literals that the package passes to the given function, as the argument
// with the given index.
func words(t *testing.T, function string, index int) (found []string) {
	t.Helper()
	for _, file := range source(t) {
		ast.Inspect(file, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok || called(call) != function || len(call.Args) <= index {
				return true
			}
			if word, ok := literal(call.Args[index]); ok {
				found = append(found, word)
			}
			return true
		})
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// The function "called" returns the name of the function or method that the expression calls.
func called(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

func literal(e ast.Expr) (word string, ok bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	word, err := strconv.Unquote(l.Value)
	return word, err == nil
}

// states returns the values of all constants of the type phase.
func states(t *testing.T) (found []string) {
	t.Helper()
	for _, file := range source(t) {
		ast.Inspect(file, func(node ast.Node) bool {
			if spec, ok := node.(*ast.ValueSpec); ok {
				if typed, ok := spec.Type.(*ast.Ident); ok && typed.Name == "phase" {
					for _, value := range spec.Values {
						word, _ := literal(value)
						found = append(found, word)
					}
				}
			}
			return true
		})
	}
	require.NotEmpty(t, found)
	return found
}

// anyCall starts a pod, sends the pod a request for a path of docs/reference/openapi.json, and returns the
// answer.
func anyCall(t *testing.T, method, path string) (code int, header http.Header, reason any) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "pod", "lock/a")
		w := httptest.NewRecorder()
		path := strings.NewReplacer("{kind}", "lock", "{name}", "a", "{hold}", "none").Replace(path)
		p.handler.ServeHTTP(w, request(t.Context(), method, path))
		<-time.After(time.Second) // a request to the fake API server takes a while
		body := map[string]any{}
		_ = json.Unmarshal(w.Body.Bytes(), &body) // a 204 has no body
		code, header, reason = w.Code, w.Header(), body["reason"]
	})
	return code, header, reason
}

func TestLocalAPIServesEachDocumentedOperation(t *testing.T) {
	doc := readOpenAPI(t)
	require.Len(t, doc.Servers, 1)
	assert.Equal(t, fmt.Sprintf("http://localhost:%d", api.LocalPort), doc.Servers[0].URL)
	for name, o := range doc.operations(t) {
		method, path, _ := strings.Cut(name, " ")
		code, _, reason := anyCall(t, method, path)
		assert.NotEqual(t, wildProblem.Reason, reason, name)
		assert.NotEqual(t, http.StatusMethodNotAllowed, code, name)
		assert.Contains(t, o.Responses, strconv.Itoa(code), "%s: the document lacks this answer", name)
	}
}

func TestOpenAPIFileListsEachServedOperation(t *testing.T) {
	operations := readOpenAPI(t).operations(t)
	patterns := words(t, "HandleFunc", 0)
	require.Greater(t, len(patterns), 1)
	for _, pattern := range patterns {
		methods, path, ok := strings.Cut(pattern, " ")
		if !ok {
			if path = pattern; path == "/" {
				continue // this handler refuses unknown paths, with the reason NoSuchPath
			}
			_, header, _ := anyCall(t, http.MethodPatch, path)
			methods = header.Get("Allow")
			require.NotEmpty(t, methods, pattern)
		}
		for method := range strings.SplitSeq(methods, ", ") {
			assert.Contains(t, operations, method+" "+path)
		}
	}
}

func TestDocumentedParametersEqualTheHandlersParameters(t *testing.T) {
	doc := readOpenAPI(t)
	var found []string
	for _, o := range doc.operations(t) {
		for _, p := range o.Parameters {
			if p.In == "query" || p.Name == "Idempotency-Key" {
				found = append(found, p.Name)
			}
		}
	}
	slices.Sort(found)
	assert.Equal(t, words(t, "Get", 0), slices.Compact(found))
	var kinds []string
	for _, kind := range []*api.Kind{api.Lock, api.Election, api.Semaphore, api.RWLock} {
		kinds = append(kinds, kind.Word)
	}
	assert.ElementsMatch(t, kinds, doc.Components.Parameters["kind"].Schema.Enum)
}

func TestOpenAPISchemasMatchLocalAPIAnswers(t *testing.T) {
	schemas := readOpenAPI(t).Components.Schemas
	for name, answer := range map[string]any{
		"Holding": holding{}, "Holdings": holdings{}, "ClaimState": claimState{}, "SlotState": slotState{}, "Problem": problem{}, "SyncLock": syncLock{}, "VariableState": variableState{},
		"BarrierState": barrierState{},
	} {
		if assert.Contains(t, schemas, name) {
			assertSchema(t, name, schemas[name], reflect.TypeOf(answer))
		}
	}
}

// assertSchema compares the properties of the schema with the fields of the answer. A property
// is required unless its field may be omitted.
func assertSchema(t *testing.T, name string, s schema, answer reflect.Type) {
	t.Helper()
	assert.Equal(t, "object", s.Type, name)
	var fields, required []string
	for f := range answer.Fields() {
		field, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields = append(fields, field)
		if options != "omitempty" {
			required = append(required, field)
		}
		p, ok := s.Properties[field]
		if !ok {
			continue
		}
		want := map[reflect.Kind]string{
			reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Float64: "number",
			reflect.Slice: "array", reflect.Struct: "object", reflect.Pointer: "string",
		}[f.Type.Kind()]
		switch {
		case p.Ref != "":
			assert.Equal(t, reflect.TypeFor[phase](), f.Type, "%s.%s", name, field)
			assert.Equal(t, "#/components/schemas/State", p.Ref)
		default:
			assert.Equal(t, want, p.Type, "%s.%s", name, field)
		}
		if f.Type.Kind() == reflect.Struct {
			assertSchema(t, name+"."+field, p, f.Type)
		}
		if p.Items != nil {
			items := map[reflect.Type]string{reflect.TypeFor[slotState](): "SlotState", reflect.TypeFor[holding](): "Holding"}
			assert.Equal(t, "#/components/schemas/"+items[f.Type.Elem()], p.Items.Ref)
		}
	}
	var documented []string
	for field := range s.Properties {
		documented = append(documented, field)
	}
	assert.ElementsMatch(t, fields, documented, name)
	assert.ElementsMatch(t, required, s.Required, name)
}

func TestLocalAPIDocsListEachStateAndReason(t *testing.T) {
	schemas := readOpenAPI(t).Components.Schemas
	page, err := os.ReadFile("../../docs/reference/api.md")
	require.NoError(t, err)
	reasons := words(t, "newProblem", 1)
	require.NotEmpty(t, reasons)
	assert.ElementsMatch(t, states(t), schemas["State"].Enum)
	assert.ElementsMatch(t, reasons, schemas["Problem"].Properties["reason"].Enum)
	for _, word := range slices.Concat(states(t), reasons) {
		assert.Contains(t, string(page), "`"+word+"`", "docs/reference/api.md lacks the word")
	}
	for name := range readOpenAPI(t).operations(t) {
		_, path, _ := strings.Cut(name, " ")
		path = strings.NewReplacer("{kind}", "KIND", "{name}", "NAME", "{hold}", "HOLD").Replace(path)
		assert.Contains(t, string(page), path, "docs/reference/api.md lacks the path")
	}
}

func TestEachDocumentedQueryKeyIsKnown(t *testing.T) {
	documented := map[string]bool{}
	doc := readOpenAPI(t)
	all := slices.Collect(maps.Values(doc.Components.Parameters))
	for _, o := range doc.operations(t) {
		all = append(all, o.Parameters...)
	}
	for _, p := range all {
		if p.In == "query" {
			documented[p.Name] = true
		}
	}
	assert.Equal(t, queryKeys, slices.Sorted(maps.Keys(documented)))
}

// problems has a problem of each reason.
var problems = []*problem{
	stoppingProblem, unavailableProblem, tooManyProblem, pausedProblem, upgradeProblem, closedProblem, lostProblem, hostProblem, wildProblem,
	busyProblem(""), undeclaredProblem("", ""), usageProblem("Use a path."),
	unknownProblem, mismatchProblem, typeProblem, overflowProblem, reusedProblem, fencedProblem, uncertainProblem, callsProblem,
}

// docs/reference/api.md promises that the field "detail" says what to do.
func TestEachProblemTellsTheProgramWhatToDo(t *testing.T) {
	details := words(t, "usageProblem", 0)
	for _, p := range problems {
		details = append(details, p.Detail)
	}
	require.Greater(t, len(details), len(problems)+10)
	for _, detail := range details {
		assert.Regexp(t, `(^|\. )(Add|Check|End|Give|Leave|Read|Send|Stop|Use|Wait|Write) `, detail)
	}
}

func TestDocumentedHTTPStatusesEqualThoseOfTheCode(t *testing.T) {
	status := map[string]int{}
	for _, p := range problems {
		status[p.Reason] = p.Status
	}
	assert.ElementsMatch(t, words(t, "newProblem", 1), slices.Collect(maps.Keys(status)))
	for name, o := range readOpenAPI(t).operations(t) {
		assert.Contains(t, o.Responses, strconv.Itoa(hostProblem.Status), name)
		for code, response := range o.Responses {
			ref, ok := response["$ref"].(string)
			if !ok || code == strconv.Itoa(http.StatusMethodNotAllowed) {
				continue
			}
			assert.Equal(t, strconv.Itoa(status[strings.TrimPrefix(ref, "#/components/responses/")]), code, "%s: %s", name, ref)
		}
	}
}

// The listed numbers in the pages about the local API are values of constants, or belong to the budget of
// the default lease duration.
func TestNumbersInAPIDocumentationMatchTheCode(t *testing.T) {
	var page string
	for _, name := range []string{"reference/api.md", "how-to/local-api.md", "how-to/sync-clients.md"} {
		text, err := os.ReadFile("../../docs/" + name)
		require.NoError(t, err)
		page += strings.Join(strings.Fields(string(text)), " ") + "\n"
	}
	b, err := api.NewBudget(api.DefaultLeaseDuration)
	require.NoError(t, err)
	short := func(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }
	for _, figure := range []string{
		fmt.Sprintf("http://localhost:%d", api.LocalPort),
		fmt.Sprintf("%d bids wait", mostBids),
		fmt.Sprintf("or %d calls at the barrier", mostBids),
		"(" + short(defaultBeats) + " if none was given)",
		"takes no line for " + short(lineTimeout),
		fmt.Sprintf("sends more than %d KiB while the stream is open", mostSkipped>>10),
		"the pod holds, for at least " + short(syncGood) + " more",
		"After a loss, `GET` gets 404 for " + short(syncTells) + ", counted",
		"duration of " + short(b.Duration) + " that is at most " + short(b.Deadline()),
		"begins " + short(b.Drain+b.Kill) + " before the end",
		"(" + short(b.Renew) + " of " + short(b.Duration) + ")",
		"a third of the lease duration, and " + short(mostPatience) + " at most",
		fmt.Sprintf("from `1s` to `%.0fm`", mostBeats.Minutes()),
		"until the Lease expires, " + short(b.Duration) + " by default",
		fmt.Sprintf("The Variable keeps the last %d keys", api.MaxKeys),
		fmt.Sprintf("certainly keeps the last %d keys of each pod", api.MaxKeys/5),
		fmt.Sprintf("a text of 1 to %d characters", api.MaxIdempotencyKey),
		fmt.Sprintf("at most %d bytes", api.MaxValue),
		fmt.Sprintf("All agents of this version write the epoch %d.", api.FirstEpoch),
	} {
		assert.Contains(t, page, figure)
	}
	assert.Equal(t, 2*time.Second, countsOn, "a pod counts until two seconds after its last call")
	assert.Equal(t, time.Minute, interest, "the agent watches the Leases for a minute after a call that only reads")
}
