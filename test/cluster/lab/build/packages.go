// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

// debian names the Debian package of each program that is not built here.
var debian = map[string]string{
	"runc":       "runc",
	"nft":        "nftables",
	"ip":         "iproute2",
	"nsenter":    "util-linux",
	"mount":      "mount",
	"mmdebstrap": "mmdebstrap",
}

// missingPackages returns the packages of the programs that the given function does not
// find.
func missingPackages(find func(string) (string, error)) []string {
	var missing []string
	for program, name := range debian {
		if _, err := find(program); err != nil {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return missing
}

// EnsurePackages installs missing packages on a Debian machine. Without Debian, the error names the
// missing packages. Without root, EnsurePackages installs nothing, and returns an error.
func EnsurePackages(ctx context.Context, l *state.Lab) error {
	if os.Geteuid() != 0 {
		return errors.New("the cluster needs root: namespaces, mounts and cgroups of its own")
	}
	missing := missingPackages(exec.LookPath)
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing programs: install what Debian calls %s", strings.Join(missing, ", "))
	}
	l.Say("installing Debian packages: %s", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s (packages needed: %s): %w\n%s", args[0], strings.Join(missing, " "), err, out)
		}
	}
	if missing = missingPackages(exec.LookPath); len(missing) > 0 {
		return fmt.Errorf("still missing after their installation: %s", strings.Join(missing, ", "))
	}
	return nil
}
