// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package tutorial reads a page of docs/tutorials, and follows the page as a person does at a
// terminal.
//
// # What a page says
//
// A block of the language "yaml" whose first line is a comment with a file name, such as
// "# worker.yaml", is a manifest. When a person who follows the page comes to the block, the person
// writes the manifest into that file. So a later block with the same file name replaces the file.
// Blocks of other languages, and other blocks of yaml, are for people alone.
//
// A block of the language "console" is a session. Each line that begins with "$ " is a command, and
// the lines below are its output. A command whose line ends with a backslash goes on in the next
// line. All commands of a page run in one shell, so its variables keep their values.
//
// # What counts as equal
//
// The output must be equal, line by line, with these exceptions:
//
//   - "…" stands for any text within a line, such as an age or the hash of a pod.
//   - A line of "…" alone stands for any number of lines.
//   - One space is equal to several spaces, and spaces at the end of a line do not count.
//
// A command must succeed, unless the next command is "echo $?", which shows the exit code.
//
// The page itself waits for the cluster, by commands such as "kubectl wait". A session
// neither sleeps nor tries a command again. The images have the names that people use. On the test
// cluster they come from package test/image/public, so that no test pulls from the internet.
package tutorial
