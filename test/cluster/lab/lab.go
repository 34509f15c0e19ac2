// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"io"
	"os"
	"os/exec"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/fault"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/kubectl"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// Cluster is a cluster whose state is in a directory. The cluster need not be up.
type Cluster struct {
	*state.Lab
	fault.Injector
}

// Open returns the cluster whose state is in dir. An empty dir means the directory that
// METAPARTICLE_CLUSTER_DIR names in the environment. Without this variable, an empty dir means
// .cluster in the repository that contains the working directory.
func Open(dir string) (*Cluster, error) {
	l, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	return &Cluster{Lab: l, Injector: fault.Injector{Lab: l}}, nil
}

// PID returns the process id that a component has on the host; 0 if the component does not run.
func (c *Cluster) PID(name, component string) int { return process.PID(c.Lab, name, component) }

// Log returns the file with the output of a component since the cluster came up.
func (c *Cluster) Log(name, component string) (string, error) {
	if component != state.Holder {
		if _, err := c.Component(name, component); err != nil {
			return "", err
		}
	}
	file := c.LogFile(name, component)
	_, err := os.Stat(file)
	return file, err
}

// Kubectl returns a command that runs the cluster's own kubectl with an administrator's rights.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return kubectl.Command(ctx, c.Lab, args...)
}

// Push puts the image or index of a tarball into the registry under a name such as
// "demo/redis:1". The result is the reference by which a pod names the image. The tarball has
// docker save's format or an OCI layout.
func (c *Cluster) Push(ctx context.Context, tarball, name string) (string, error) {
	if process.PID(c.Lab, state.ControlPlane, "registry") == 0 {
		return "", state.ErrDown
	}
	image, err := oci.Open(tarball)
	if err != nil {
		return "", err
	}
	if err := oci.Push(ctx, c.Registry()+"/"+name, image); err != nil {
		return "", err
	}
	return state.RegistryInCluster + "/" + name, nil
}

// Exec runs a command in a node's namespaces, as a login on the node would.
func (c *Cluster) Exec(ctx context.Context, name string, stdin io.Reader, stdout, stderr io.Writer, command ...string) error {
	enter, err := process.Enter(c.Lab, name)
	if err != nil {
		return err
	}
	words := append(enter, command...)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(c.Environment(), "TERM="+os.Getenv("TERM"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	return cmd.Run()
}
