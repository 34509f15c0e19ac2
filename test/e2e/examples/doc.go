// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package examples applies the files in the folder examples as a person does, and deletes pods
// while an example runs. The kernel reports the start and end of each process. These reports show
// how many applications ran at once.
package examples
