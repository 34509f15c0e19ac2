// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command hello is the product that tests build.
package main

import "os"

var version = "unstamped"

func main() { _, _ = os.Stdout.WriteString("hello " + version + "\n") }
