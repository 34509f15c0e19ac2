// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command cluster runs a real Kubernetes cluster of several nodes on this
// machine, and breaks it on purpose; see package lab.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
)

const usage = `usage: go run ./cluster [-dir DIR] COMMAND

  up                        bring the cluster up; -workers N before it, for another number than 3
  metrics                   add metrics-server to the cluster that is up, for autoscalers and kubectl top
  down                      end the cluster, and leave nothing
  status [-o json]          the nodes and components, with their states
  kubectl ARGS…             the cluster's own kubectl, as administrator
  cut NODE, heal NODE       take a worker's network away; give it back
  crash NODE, boot NODE     end a worker like a power failure; start it again
  freeze NODE, thaw NODE    stop all processes of a node, pods too; let them go on
  kill NODE COMPONENT       end a component with SIGKILL
  start NODE COMPONENT      start the component again
  logs NODE COMPONENT       the output of a component
  exec NODE COMMAND…        run a command on a node
  push TARBALL NAME         put an image into the registry, such as demo/redis:1
  registry [-in-cluster]    the registry's address on this host, or to the nodes;
                            with -private the one that wants a login, to the nodes

nodes: cp (the control plane), n1, n2, n3
components: of cp %s; of workers %s
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.Is(err, errCommand) && errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	default:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// errCommand means that the user's own command has failed, and has printed the cause.
var errCommand = errors.New("command")

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), usage, list(lab.ControlPlane), list("n1"))
	}
	dir := flags.String("dir", "", "state directory; default $METAPARTICLE_CLUSTER_DIR, or .cluster in the repository")
	workers := flags.Int("workers", 0, "number of workers; default 3")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return errors.New("no command")
	}
	cluster, err := lab.Open(*dir)
	if err != nil {
		return err
	}
	cluster.Workers, cluster.Progress = *workers, os.Stderr
	command, rest := flags.Arg(0), flags.Args()[1:]
	do, ok := commands[command]
	if !ok {
		flags.Usage()
		return fmt.Errorf("no command %q", command)
	}
	if len(rest) < do.args {
		return fmt.Errorf("%s: needs %d arguments, see the usage", command, do.args)
	}
	return do.do(ctx, cluster, rest, out)
}

func list(node string) string { return strings.Join(lab.Components(node), ", ") }

type command struct {
	args int // the minimum number of arguments
	do   func(ctx context.Context, c *lab.Cluster, args []string, out io.Writer) error
}

// onNode makes a command with a node as its argument.
func onNode(do func(*lab.Cluster, context.Context, string) error) command {
	return command{1, func(ctx context.Context, c *lab.Cluster, args []string, _ io.Writer) error {
		return do(c, ctx, args[0])
	}}
}

// onComponent makes a command with a node and a component as its arguments.
func onComponent(do func(*lab.Cluster, context.Context, string, string) error) command {
	return command{2, func(ctx context.Context, c *lab.Cluster, args []string, _ io.Writer) error {
		return do(c, ctx, args[0], args[1])
	}}
}

var commands = map[string]command{
	"up": {0, func(ctx context.Context, c *lab.Cluster, _ []string, out io.Writer) error {
		if err := c.Up(ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "export KUBECONFIG=%s\n", c.Kubeconfig())
		return err
	}},
	"metrics": {0, func(ctx context.Context, c *lab.Cluster, _ []string, _ io.Writer) error { return c.AddMetrics(ctx) }},
	"down":    {0, func(ctx context.Context, c *lab.Cluster, _ []string, _ io.Writer) error { return c.Down(ctx) }},
	"status":  {0, status},
	"kubectl": {0, kubectl},
	"cut":     onNode((*lab.Cluster).Cut),
	"heal":    onNode((*lab.Cluster).Heal),
	"crash":   onNode((*lab.Cluster).Crash),
	"boot":    onNode((*lab.Cluster).Boot),
	"freeze":  onNode((*lab.Cluster).Freeze),
	"thaw":    onNode((*lab.Cluster).Thaw),
	"kill":    onComponent((*lab.Cluster).Kill),
	"start":   onComponent((*lab.Cluster).Start),
	"logs":    {2, logs},
	"exec": {2, func(ctx context.Context, c *lab.Cluster, args []string, out io.Writer) error {
		return asCommand(c.Exec(ctx, args[0], os.Stdin, out, os.Stderr, args[1:]...))
	}},
	"registry": {0, func(_ context.Context, c *lab.Cluster, args []string, out io.Writer) error {
		address := c.Registry()
		switch {
		case slices.Equal(args, []string{"-in-cluster"}):
			address = lab.RegistryInCluster
		case slices.Equal(args, []string{"-private"}):
			address = lab.PrivateRegistry
		}
		_, err := fmt.Fprintln(out, address)
		return err
	}},
	"push": {2, func(ctx context.Context, c *lab.Cluster, args []string, out io.Writer) error {
		reference, err := c.Push(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, reference)
		return err
	}},
}

func asCommand(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errCommand, err)
}

func kubectl(ctx context.Context, c *lab.Cluster, args []string, out io.Writer) error {
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if s.Kubectl == "" {
		return lab.ErrDown
	}
	cmd := c.Kubectl(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, os.Stderr
	return asCommand(cmd.Run())
}

func logs(_ context.Context, c *lab.Cluster, args []string, out io.Writer) error {
	name, err := c.Log(args[0], args[1])
	if err != nil {
		return err
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(out, file)
	return err
}

func status(ctx context.Context, c *lab.Cluster, args []string, out io.Writer) error {
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if slices.Equal(args, []string{"-o", "json"}) {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(s)
	}
	if len(s.Nodes) == 0 {
		return lab.ErrDown
	}
	fmt.Fprintf(out, "Kubernetes %s, up: %v\nkubeconfig: %s\nregistry:   %s (in the cluster %s)\nshared:     %s (on the workers %s)\n\n",
		s.Kubernetes, s.Up, s.Kubeconfig, s.Registry, s.RegistryInCluster, s.Shared, s.SharedMount)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tADDRESS\tSTATE\tCOMPONENTS (PID)")
	for _, node := range s.Nodes {
		var components []string
		for _, name := range lab.Components(node.Name) {
			pid, has := node.Components[name]
			if !has {
				continue
			}
			state := "dead"
			if pid != 0 {
				state = fmt.Sprint(pid)
			}
			components = append(components, fmt.Sprintf("%s (%s)", name, state))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", node.Name, node.Address, node.State, strings.Join(components, ", "))
	}
	return table.Flush()
}
