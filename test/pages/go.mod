module github.com/metaparticle-io/metaparticle/test/pages

go 1.26.0

replace github.com/metaparticle-io/metaparticle => ../../

require (
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
	github.com/metaparticle-io/metaparticle v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	github.com/gomarkdown/markdown v0.0.0-20260411013819-759bbc3e3207 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)
