// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"

	"github.com/alecthomas/chroma/v2"
	"github.com/alecthomas/chroma/v2/lexers"

	"github.com/metaparticle-io/metaparticle/pages"
)

// colours divides code into spans, each with a class of pages/style.css.
func colours(language, code string) (spans []pages.Span) {
	lexer := lexers.Get(language)
	if lexer == nil {
		return []pages.Span{{Text: code}}
	}
	tokens, err := chroma.Coalesce(lexer).Tokenise(nil, code)
	if err != nil {
		return []pages.Span{{Text: code}}
	}
	for _, token := range tokens.Tokens() {
		class := classOf(token.Type)
		if last := len(spans) - 1; last >= 0 && spans[last].Class == class {
			spans[last].Text += token.Value
		} else {
			spans = append(spans, pages.Span{Class: class, Text: token.Value})
		}
	}
	return spans
}

func classOf(kind chroma.TokenType) string {
	switch {
	case kind.InCategory(chroma.Comment):
		return "c"
	case kind == chroma.GenericOutput:
		return "o"
	case kind == chroma.GenericPrompt:
		return "c"
	case kind == chroma.NameTag, kind.InCategory(chroma.Keyword) && kind != chroma.KeywordConstant:
		return "k"
	case kind.InSubCategory(chroma.LiteralString):
		return "s"
	case kind.InSubCategory(chroma.LiteralNumber), kind == chroma.KeywordConstant:
		return "n"
	case slices.Contains([]chroma.TokenType{chroma.NameFunction, chroma.NameBuiltin, chroma.NameVariable, chroma.NameAttribute}, kind):
		return "w"
	}
	return ""
}
