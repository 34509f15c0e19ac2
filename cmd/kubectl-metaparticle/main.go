// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command kubectl-metaparticle is a plugin of kubectl. "inject" shows, without a cluster, what the
// webhook changes in a manifest, and "explain" why a pod or workload of a cluster is gated or not. Both
// run the webhook's own code, so their messages are the webhook's.
//
// "status" and "console" show slots. "yield", "pause", "resume", "forget" and "recover" write
// annotations on the Leases of slots, which agents watch; a command that refuses has written nothing.
// "check" judges an installation. Durations are measured by the clock of this computer. Times in
// "status" come from the clocks of the cluster's nodes.
//
// A cluster may change a pod in ways that "inject" cannot know, because a manifest contains neither
// the cluster's defaults, LimitRanges and namespace labels, nor other webhooks.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

const rootLong = `Shows which pod holds which slot, and tells why; hands slots over; judges an installation.

Exit codes of all commands:
  0  yes: in force, done, or nothing to complain about
  1  no: not in force, a check failed, nothing has the name, or a request was written and did
     not come true in time
  2  the command could not tell: wrong usage, no access, an error
  3  refused: the command has written nothing, and says what to do`

const rootExamples = `  kubectl metaparticle help yield
  kubectl metaparticle status -A
  kubectl metaparticle explain deployment/biller
  kubectl metaparticle inject -f biller.yaml
  kubectl metaparticle yield deployment/biller --to biller-7d4f9-x2x8z
  kubectl metaparticle pause --stop lock/migrate
  kubectl metaparticle resume lock/migrate
  kubectl metaparticle forget once/schema 7
  kubectl metaparticle hold lock/migrate -- ./migrate.sh
  kubectl metaparticle console
  kubectl metaparticle recover --floor 48000 --dry-run
  kubectl metaparticle check
  kubectl metaparticle version
  kubectl metaparticle options`

func main() {
	if len(os.Args) > 2 && os.Args[1] == guardName {
		guardMain()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	args := os.Args[1:]
	// kubectl completes a command line by a program of this name, which can be a link to the plugin.
	if filepath.Base(os.Args[0]) == "kubectl_complete-metaparticle" && (len(args) == 0 || args[0] != cobra.ShellCompRequestCmd) {
		args = append([]string{cobra.ShellCompRequestCmd}, args...)
	}
	code := run(ctx, args, stdio{os.Stdin, os.Stdout, os.Stderr}.harmless())
	stop()
	os.Exit(code)
}

// plugin is one call of the program. The field "code" is the exit code of a command without an error.
type plugin struct {
	std  stdio
	kube *genericclioptions.ConfigFlags
	code int
}

func newPlugin(std stdio) *plugin {
	return &plugin{std: std, kube: genericclioptions.NewConfigFlags(true)}
}

func run(ctx context.Context, args []string, std stdio) int {
	p := newPlugin(std)
	root := p.root()
	root.SetArgs(withTwoDashes(root, args))
	err := root.ExecuteContext(ctx)
	return exitCode(p.code, err, std.err)
}

// root returns the command with all others below it.
func (p *plugin) root() *cobra.Command {
	root := &cobra.Command{
		Use: "kubectl-metaparticle", Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl metaparticle"},
		Short: "Metaparticle's slots", Long: rootLong, Example: rootExamples,
		SilenceErrors: true, SilenceUsage: true,
	}
	p.kube.CacheDir = nil // nothing is discovered
	p.kube.AddFlags(root.PersistentFlags())
	p.completeFlag(root, "namespace", namespaces)
	p.completeFlag(root, "context", contexts)
	root.SetIn(p.std.in)
	root.SetOut(p.std.out)
	root.SetErr(p.std.err)
	root.SetFlagErrorFunc(explained)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetUsageFunc(usage)
	root.AddCommand(
		p.statusCommand(), p.explainCommand(), p.injectCommand(), p.yieldCommand(), p.pauseCommand(), p.resumeCommand(),
		p.forgetCommand(), p.holdCommand(), p.consoleCommand(), p.recoverCommand(), p.checkCommand(),
		&cobra.Command{
			Use: "version", Short: "Print the version of this plugin", Args: noArguments,
			Long: "Prints the version of this plugin. Only a cluster knows the version of an installation: see\nkubectl metaparticle check.",
			RunE: p.runs(func(context.Context, []string) (int, error) {
				say(p.std.out, "%s", versionOfBuild())
				return exitOK, nil
			}),
		},
		&cobra.Command{
			Use: "options", Short: "List the flags of kubectl that all commands have", Args: noArguments, Hidden: true,
			RunE: func(c *cobra.Command, _ []string) error {
				c.Printf("Each command has these flags of kubectl:\n\n%s", c.InheritedFlags().FlagUsages())
				return nil
			},
		})
	return root
}

// runs returns a function for the field RunE, which keeps the exit code. A command for the whole
// cluster refuses a namespace, because a person would expect an answer about this namespace alone.
func (p *plugin) runs(f func(ctx context.Context, args []string) (int, error)) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) (err error) {
		if flag := c.Flags().Lookup("namespace"); flag.Changed && slices.Contains(wholeCluster, c.Name()) {
			return fmt.Errorf("%s acts on the whole cluster: leave out -n", c.Name())
		}
		p.code, err = f(c.Context(), args)
		return err
	}
}

const (
	exitOK = iota
	// exitNot is the answer "no": a claim or a slot is not in force, a check failed, nothing has the name, or the
	// wanted state did not follow a written request in time.
	exitNot
	// exitError means that the command could not answer: wrong usage, no access, or another error.
	exitError
	// exitRefused means that the command has written nothing, and says what to do.
	exitRefused
)

// refusal is the sentence by which a command refuses to write.
type refusal string

func (r refusal) Error() string { return string(r) }

// absent says that nothing has the name which a person wrote. That is an answer: no.
type absent string

func (a absent) Error() string { return string(a) }

// exitCode writes the error of a command in one line, and returns the exit code of the command. An
// error that joins several errors has several lines, and a semicolon replaces each line feed.
func exitCode(code int, err error, out io.Writer) int {
	refused, ok := errors.AsType[refusal](err)
	nothing, no := errors.AsType[absent](err)
	switch {
	case no:
		say(out, "%s", nothing)
		return exitNot
	case ok:
		say(out, "refused: %s", refused)
		return exitRefused
	case err != nil:
		say(out, "error: %s", inOneSentence(err.Error()))
		return exitError
	}
	return code
}

// inOneSentence makes one line of an error. Cobra suggests commands in further lines.
func inOneSentence(text string) string {
	text, suggested, _ := strings.Cut(text, "\n\nDid you mean this?\n\t")
	if suggested != "" {
		text += ": did you mean " + strings.Join(strings.Fields(suggested), ", ") + "?"
	}
	return strings.ReplaceAll(text, "\n", "; ")
}

// wholeCluster has the commands that act on the whole cluster.
var wholeCluster = []string{"check", "console", "recover"}

// explained returns the error about a flag, with a hint at the command's help.
func explained(c *cobra.Command, err error) error {
	text := err.Error()
	if strings.Contains(text, "unknown shorthand flag: 'A'") || strings.HasSuffix(text, "unknown flag: --all-namespaces") {
		if slices.Contains(wholeCluster, c.Name()) {
			return fmt.Errorf("%s acts on the whole cluster: leave out -A", c.Name())
		}
		return fmt.Errorf("%s acts on one namespace: leave out -A, and name the namespace by -n", c.Name())
	}
	return fmt.Errorf("%w (-h for help)", err)
}

func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument: leave out %q", c.Name(), args[0])
	}
	return nil
}

var oneDash = regexp.MustCompile(`^-([a-z][a-z0-9-]+)(=.*)?$`)

// withTwoDashes writes the long flags of earlier versions, such as -stop, as --stop. Scripts have them.
func withTwoDashes(root *cobra.Command, args []string) []string {
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		m := oneDash.FindStringSubmatch(arg)
		known := func(c *cobra.Command) bool {
			return c.Flags().Lookup(m[1]) != nil || c.PersistentFlags().Lookup(m[1]) != nil
		}
		if m != nil && (known(root) || slices.ContainsFunc(root.Commands(), known)) {
			args[i] = "-" + arg
		}
	}
	return args
}

// durationFlag defines a flag with a duration. The error about a wrong value says how to write a
// duration.
func durationFlag(flags *pflag.FlagSet, to *time.Duration, name, usage string) {
	flags.Func(name, usage, func(value string) error {
		read, err := time.ParseDuration(value)
		if err != nil || read < 0 {
			return errors.New("write a duration with its unit, such as 30s or 5m")
		}
		*to = read
		return nil
	})
}

// numberFlag defines a flag with a number that is not negative. The error about a wrong value has the
// text "write", which says how to write the number.
func numberFlag[N int | uint64](flags *pflag.FlagSet, to *N, name, usage, write string) {
	flags.Func(name, usage, func(value string) error {
		read, err := strconv.ParseUint(value, 0, 63)
		if err != nil {
			return errors.New(write)
		}
		*to = N(read)
		return nil
	})
}

// release is the version of this build, if the build belongs to a release. The linker then writes
// the version into this variable.
var release string

// versionOfBuild returns the version of this build. If the build belongs to no release, the
// function returns the version that Go makes from the commit of the checkout.
func versionOfBuild() string {
	built, ok := debug.ReadBuildInfo()
	if release == "" && ok {
		return built.Main.Version
	}
	return cmp.Or(release, "unknown")
}

// usage prints what cobra's usage template prints, but without kubectl's flags, which are many. A
// template would double the size of the program: the linker then keeps every exported method.
func usage(c *cobra.Command) error {
	w := c.OutOrStderr()
	fmt.Fprintf(w, "Usage:\n")
	if c.Runnable() {
		fmt.Fprintf(w, "  %s\n", c.UseLine())
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "  %s [command]\n", c.CommandPath())
	}
	if c.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", c.Example)
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nAvailable Commands:\n")
	}
	for _, below := range c.Commands() {
		if below.IsAvailableCommand() || below.Name() == "help" {
			fmt.Fprintf(w, "  %-*s %s\n", below.NamePadding(), below.Name(), below.Short)
		}
	}
	if flags := c.LocalNonPersistentFlags(); flags.HasAvailableFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s\n", strings.TrimRight(flags.FlagUsages(), "\n"))
	}
	if c.HasAvailableInheritedFlags() {
		fmt.Fprintf(w, "\nUse \"kubectl metaparticle options\" for the flags of kubectl, such as --namespace, --context and --as.\n")
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nUse \"%s [command] --help\" for more information about a command.\n", c.CommandPath())
	}
	return nil
}
