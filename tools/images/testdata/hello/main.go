// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command hello stands for a product in tests.
package main

import "os"

var version = "unstamped"

func main() { _, _ = os.Stdout.WriteString("hello " + version + "\n") }
