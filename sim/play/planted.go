// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package play

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
)

var (
	planting = flag.Bool("planted", true, "show that the simulation catches planted bugs")
	update   = flag.Bool("update", false, "search all seeds for each planted bug, and rewrite the lines \"first seed:\"")
)

// plant is one bug: edits of the source, and the invariants that have to catch the bug.
// Each plant is a txtar file of the folder planted/. The file has a comment, a line
// "caught by: NAME …", and for each edit two sections, "PATH was" and "PATH is". A path
// begins at the module's root. A line "played by: TEST" before "caught by:" names the
// test that plays the bug. The default is TestSimulationBreaksNoInvariant. With
// "played by: PACKAGE/TEST" a test of that package of the product plays the bug. A line
// "first seed: N" saves time: that seed is played before all others. If package sim plays a bug of
// package enrolled, the line begins with "first seed of the model: ".
type plant struct {
	name   string
	file   string
	first  uint64 // the seed to play first; zero if unknown
	line   string // begins the line of that seed
	pkg    string // the package of the test; empty for the simulation's own
	test   string
	caught []string
	edits  []edit
}

type edit struct{ path, was, is string }

// mostSeeds bounds the number of seeds that a test plays to catch a bug.
const mostSeeds = 150

// defaultTest is the test that plays a bug, unless the bug's file names another test.
// The expression playedBy matches the line that names the test.
const defaultTest = "TestSimulationBreaksNoInvariant"

var playedBy = regexp.MustCompile(`played by: (?:(\S+)/)?(\w+)`)

// caught matches the line of the first violation in the output of a test.
var caught = regexp.MustCompile(`seed (\d+) at \S+: .*?invariant ([a-z-]+): .*`)

// firstSeed matches the line of the seed that is played first.
func (p plant) firstSeed() *regexp.Regexp { return regexp.MustCompile(`(?m)^` + p.line + `(\d+)\n`) }

// Planted shows that each bug of the folder planted/ is caught by the test that the bug's file
// names. For bugs whose test is in a package of the product, call [PlantedInPackages]. Planted compiles the
// package of the calling test with all bugs of the folder planted/, and switches on one bug at a
// time. The overlay of go build replaces the sources, so the product has no trace of the bugs.
func Planted(t *testing.T) {
	if !*planting || *seed != 0 {
		t.Skip("not asked for")
	}
	plants := readPlants(t)
	binary := compile(t, plants, ".")
	t.Run("none", func(t *testing.T) {
		out, err := simulate(t, binary, plant{test: defaultTest}, 1, 10)
		require.NoError(t, err, "the same binary with no bug switched on:\n%s", out)
	})
	for _, p := range plants {
		if p.pkg != "" {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			found := p.search(t, binary)
			t.Log(found[0])
			if *update {
				p.rewrite(t, found[1])
			}
		})
	}
}

// replays is the number of times that the first seed is played. Two replays of a seed may differ,
// as package sim explains, so a replay may miss a bug that the seed has caught before.
const replays = 4

// search plays seeds until an invariant of the line "caught by:" catches the plant, and returns the
// match of the expression "caught". A bug may also break other invariants. If a seed shows such an
// invariant first, search reports the seed, and goes on.
func (p plant) search(t *testing.T, binary string) []string {
	if p.first != 0 && !*update {
		for range replays {
			out, err := simulate(t, binary, p, p.first, p.first)
			if found := caught.FindStringSubmatch(out); err != nil && found != nil && slices.Contains(p.caught, found[2]) {
				return found
			}
		}
		t.Logf("seed %d does not catch the bug today", p.first)
	}
	for from := uint64(1); from <= mostSeeds; {
		out, err := simulate(t, binary, p, from, mostSeeds)
		if err == nil {
			break
		}
		found := caught.FindStringSubmatch(out)
		require.NotNil(t, found, "no invariant has caught it:\n%s", out)
		if slices.Contains(p.caught, found[2]) {
			return found
		}
		t.Logf("caught by another invariant: %s", found[0])
		last, err := strconv.ParseUint(found[1], 10, 64)
		require.NoError(t, err)
		from = last + 1
	}
	require.FailNow(t, "not caught", "%d seeds have not shown %v", mostSeeds, p.caught)
	return nil
}

// PlantedClaims shows that TestClaimsKeepInvariantsInRandomSchedules of agent/elector catches
// the named bugs.
func PlantedClaims(t *testing.T, names ...string) {
	plants := map[string]string{"": "TestClaimsKeepInvariantsInRandomSchedules$"}
	for _, name := range names {
		plants[name] = "TestClaimsKeepInvariantsInRandomSchedules$"
	}
	plantedIn(t, "agent/elector", plants)
}

// PlantedInPackages shows that tests of the product's packages catch the planted bugs whose files name
// these tests.
func PlantedInPackages(t *testing.T) {
	packages := map[string]map[string]string{}
	for _, p := range readPlants(t) {
		if p.pkg == "" {
			continue
		}
		if packages[p.pkg] == nil {
			packages[p.pkg] = map[string]string{}
		}
		packages[p.pkg][p.name] = p.test + "$"
	}
	require.NotEmpty(t, packages)
	for _, pkg := range slices.Sorted(maps.Keys(packages)) {
		tests := packages[pkg]
		tests[""] = "(" + strings.Join(slices.Sorted(maps.Values(tests)), "|") + ")"
		t.Run(pkg, func(t *testing.T) { plantedIn(t, pkg, tests) })
	}
}

// plantedIn compiles the tests of the package, and runs the tests for each bug. In the argument
// "tests", the keys are the names of the bugs, and the values are patterns of test names. An empty
// key runs the tests without a bug.
func plantedIn(t *testing.T, pkg string, tests map[string]string) {
	if !*planting || *seed != 0 {
		t.Skip("not asked for")
	}
	binary := compile(t, readPlants(t), "../"+pkg)
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run("bug "+name, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, binary, name, "-test.run=^"+tests[name], "-test.failfast")
			if name == "" {
				require.NoError(t, err, "the same binary with no bug switched on:\n%s", out)
				return
			}
			require.Error(t, err, "not caught")
			found := regexp.MustCompile(`Error: +\t(.*)`).FindStringSubmatch(out)
			require.NotNil(t, found, "no invariant has caught it:\n%s", out)
			t.Log(found[1])
		})
	}
}

// readPlants returns the plants of the folder planted/. For package sim, the result also has those
// plants of package enrolled that edit only enroll/step, because the model of enroll runs that package.
func readPlants(t *testing.T) []plant {
	files, err := filepath.Glob("planted/*.txtar")
	require.NoError(t, err)
	shared, err := filepath.Glob("enrolled/planted/*.txtar")
	require.NoError(t, err)
	var plants []plant
	for _, file := range append(files, shared...) {
		archive, err := txtar.ParseFile(file)
		require.NoError(t, err)
		p := plant{name: strings.TrimSuffix(filepath.Base(file), ".txtar"), file: file, test: defaultTest, line: "first seed: "}
		if slices.Contains(shared, file) {
			p.line = "first seed of the model: "
		}
		if found := p.firstSeed().FindSubmatch(archive.Comment); found != nil {
			p.first, err = strconv.ParseUint(string(found[1]), 10, 64)
			require.NoError(t, err, file)
		}
		if found := playedBy.FindSubmatch(archive.Comment); found != nil {
			p.pkg, p.test = string(found[1]), string(found[2])
		}
		if _, names, ok := strings.Cut(string(archive.Comment), "caught by:"); ok {
			names, _, _ = strings.Cut(names, "\n")
			p.caught = strings.Fields(names)
		}
		require.NotEmpty(t, p.caught, "%s: no line \"caught by: …\"", file)
		require.Zero(t, len(archive.Files)%2, "%s: a PATH was without its PATH is", file)
		for pair := range slices.Chunk(archive.Files, 2) {
			path, was := strings.CutSuffix(pair[0].Name, " was")
			require.True(t, was && pair[1].Name == path+" is", "%s: %q and %q", file, pair[0].Name, pair[1].Name)
			p.edits = append(p.edits, edit{path: path, was: string(pair[0].Data), is: string(pair[1].Data)})
		}
		beyond := func(e edit) bool { return filepath.Dir(e.path) != "enroll/step" }
		if slices.Contains(shared, file) && slices.ContainsFunc(p.edits, beyond) {
			continue
		}
		plants = append(plants, p)
	}
	return plants
}

// switchFile is a source file that compile adds to each package with a bug. The variable
// plantedBug is the name of the bug that is switched on.
const switchFile = `package %s

import "os"

var plantedBug = os.Getenv("SIM_PLANTED")
`

// PlantsFit shows that each planted bug quotes lines of today's source.
func PlantsFit(t *testing.T) { require.NotEmpty(t, edited(t, readPlants(t))) }

// edited returns the sources with all planted bugs, by path. In the text of an edit, the word PLANTED
// stands for the condition that the bug is switched on.
func edited(t *testing.T, plants []plant) map[string]string {
	root, sources := moduleRoot(t), map[string]string{}
	for _, p := range plants {
		for _, e := range p.edits {
			source, ok := sources[e.path]
			if !ok {
				b, err := os.ReadFile(filepath.Join(root, e.path))
				require.NoError(t, err)
				source = string(b)
			}
			require.Equal(t, 1, strings.Count(source, e.was),
				"%s: the source has changed, and the plant has to follow: in %s, once:\n%s", p.name, e.path, e.was)
			is := strings.ReplaceAll(e.is, "PLANTED", fmt.Sprintf("(plantedBug == %q)", p.name))
			sources[e.path] = strings.Replace(source, e.was, is, 1)
		}
	}
	return sources
}

// compile writes the edited sources to a temporary directory, and builds the package's tests from
// them.
func compile(t *testing.T, plants []plant, pkg string) string {
	root, dir, sources := moduleRoot(t), t.TempDir(), edited(t, plants)
	overlay := map[string]string{}
	for path, source := range sources {
		overlay[filepath.Join(root, path)] = write(t, dir, path, source)
		folder := filepath.Dir(path)
		name := filepath.Base(folder)
		const added = "planted_switch.go"
		overlay[filepath.Join(root, folder, added)] = write(t, dir, filepath.Join(folder, added), fmt.Sprintf(switchFile, name))
	}
	description, err := json.Marshal(map[string]any{"Replace": overlay})
	require.NoError(t, err)
	binary := filepath.Join(dir, "sim.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", write(t, dir, "overlay.json", string(description)), "-o", binary, pkg)
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

func moduleRoot(t *testing.T) string {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, dir, path, text string) string {
	full := filepath.Join(dir, path)
	require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
	require.NoError(t, os.WriteFile(full, []byte(text), 0o644))
	return full
}

// rewrite replaces the line "first seed:" in the plant's file, or adds that line.
func (p plant) rewrite(t *testing.T, first string) {
	archive, err := txtar.ParseFile(p.file)
	require.NoError(t, err)
	comment := p.firstSeed().ReplaceAllString(string(archive.Comment), "")
	archive.Comment = []byte(comment + p.line + first + "\n")
	require.NoError(t, os.WriteFile(p.file, txtar.Format(archive), 0o644))
}

// simulate plays the seeds from first to last with one bug switched on, until a seed fails.
func simulate(t *testing.T, binary string, p plant, first, last uint64) (string, error) {
	return run(t, binary, p.name, "-test.run=^"+p.test+"$", "-test.failfast", fmt.Sprintf("-first=%d", first), fmt.Sprintf("-seeds=%d", last))
}

// hangs is the processor time, in seconds, after which the binary of tests counts as hung. The
// tests play 100 seeds in 20 s of processor time. A limit of wall-clock time would not fit, because
// the simulation gets only the processor time that the end-to-end tests leave.
const hangs = 600

// run runs a binary of tests, and returns its output. The named bug is switched on. With an empty
// name no bug is switched on.
func run(t *testing.T, binary, bug string, args ...string) (string, error) {
	limited := append([]string{"-c", fmt.Sprintf(`ulimit -t %d; exec "$0" "$@"`, hangs), binary}, args...)
	run := exec.CommandContext(t.Context(), "sh", limited...)
	run.Env = append(os.Environ(), "SIM_PLANTED="+bug)
	out, err := run.CombinedOutput()
	return string(out), err
}
