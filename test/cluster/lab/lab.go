// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// KubernetesVersion is the version of every Kubernetes program in the cluster.
// The build refuses a programs/kubernetes/go.mod that says otherwise.
const KubernetesVersion = "v1.37.1"

// CertManagerVersion is the last one whose programs can be built from its
// module: later ones have theirs in nested modules that no proxy serves. Its
// cainjector alone is a later one's (programs/cainjector says why).
const CertManagerVersion = "v1.11.5"

// CoreDNSVersion is the tag of CoreDNS and of its image.
const CoreDNSVersion = "v1.14.7"

// featureGates are those that differ from the version's defaults, in the API
// server and in the kubelets alike. lifecycle.stopSignal is a field that users of
// other clusters may set, and without its gate the API server drops it.
const featureGates = "--feature-gates=ContainerStopSignals=true"

// Addresses within the cluster. No other network sees them.
const (
	controlAddress = "10.213.0.1"
	podNetwork     = "10.214.0.0/16"
	serviceNetwork = "10.215.0.0/16"
	dnsAddress     = "10.215.0.10"
	metricsPort    = "4443"

	// RegistryInCluster is the image registry's name in image references of pods.
	RegistryInCluster = controlAddress + ":5000"

	// PrivateRegistry is the same registry for pulls with a login, and no others.
	PrivateRegistry = controlAddress + ":5001"
	PrivateUser     = "puller"
	PrivatePassword = "open-sesame"
)

// ControlPlane is the node that runs the control plane.
const ControlPlane = "cp"

// SharedMount is where every worker has the host's directory [Cluster.SharedDir].
const SharedMount = "/var/lib/shared"

// defaultWorkers is the least number with a majority left when one is gone.
const defaultWorkers = 3

// maxDir is what a socket's name, 107 bytes, leaves for the state directory:
// the longest in it is /run/cp-registry-forward.sock.
const maxDir = 107 - 29

// ErrDown is the answer to a request that needs a running cluster.
var ErrDown = errors.New("the cluster is not up")

// Cluster is a cluster in a state directory, up or not.
type Cluster struct {
	// Workers is how many worker nodes Up makes; 0 means 3.
	Workers int
	// Progress gets a line for each step; nil means none.
	Progress io.Writer

	dir     string // state directory, absolute
	sources string // this repository's test/cluster/programs
	began   time.Time
	state   state
}

// state is what a later process must know of a running cluster.
type state struct {
	Workers      int    `json:"workers"`
	Kubernetes   string `json:"kubernetes"`
	APIPort      int    `json:"apiPort"`
	RegistryPort int    `json:"registryPort"`
	Metrics      bool   `json:"metrics"` // AddMetrics has added them
}

// Open returns the cluster whose state is in dir; "" means the environment's
// METAPARTICLE_CLUSTER_DIR or else .cluster in the repository around the
// working directory.
func Open(dir string) (*Cluster, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = os.Getenv("METAPARTICLE_CLUSTER_DIR")
	}
	if dir == "" {
		dir = filepath.Join(root, ".cluster")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	// The nodes mount over these, and would lose sight of the state.
	for _, hidden := range []string{"/run", "/var/lib", "/var/log", "/proc", "/sys"} {
		if dir == hidden || strings.HasPrefix(dir, hidden+"/") {
			return nil, fmt.Errorf("state directory %s: must not be below %s", dir, hidden)
		}
	}
	if len(dir) > maxDir {
		return nil, fmt.Errorf("state directory %s: longer than %d bytes, so that sockets in it have too long names", dir, maxDir)
	}
	c := &Cluster{dir: dir, sources: filepath.Join(root, "test", "cluster", "programs"), began: time.Now()}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// repository finds the checkout around the working directory.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "test", "cluster", "programs")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not in a checkout of this repository", dir)
		}
	}
}

func (c *Cluster) load() error {
	data, err := os.ReadFile(c.path("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(data, &c.state)
}

func (c *Cluster) save() error {
	data, err := json.MarshalIndent(c.state, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("cluster.json"), data, 0o644)
}

// path is a path in the state directory.
func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// cgroup is the name, below each hierarchy's root, of the cgroup that holds
// the whole cluster: one for each state directory.
func (c *Cluster) cgroup() string {
	return fmt.Sprintf("metaparticle-%x", sha256.Sum256([]byte(c.dir)))[:len("metaparticle-")+8]
}

// Dir is the state directory.
func (c *Cluster) Dir() string { return c.dir }

// Kubeconfig is a file that makes any client on this host administrator of the cluster.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

// SharedDir is the directory that every worker has at [SharedMount].
func (c *Cluster) SharedDir() string { return c.path("shared") }

// Registry is the image registry's address on this host.
func (c *Cluster) Registry() string {
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(c.state.RegistryPort))
}

// Nodes are the names of the workers.
func (c *Cluster) Nodes() []string {
	names := make([]string, c.state.Workers)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i+1)
	}
	return names
}

// node finds a node by name; number 0 is the control plane.
func (c *Cluster) node(name string) (node, error) {
	if name == ControlPlane {
		return node{Name: name}, nil
	}
	if i := slices.Index(c.Nodes(), name); i >= 0 {
		return node{Name: name, number: i + 1}, nil
	}
	return node{}, fmt.Errorf("no node %q: there are %s and %s", name, ControlPlane, strings.Join(c.Nodes(), ", "))
}

// say reports progress.
func (c *Cluster) say(format string, args ...any) {
	if c.Progress != nil {
		fmt.Fprintf(c.Progress, "[%6.2f s] %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
	}
}
