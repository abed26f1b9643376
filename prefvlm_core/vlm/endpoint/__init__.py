"""Large vision-language models behind an OpenAI-compatible endpoint, as a source of labels.

`prompts` holds what is asked and how answers are read, `strips` what the model sees, `transport` the HTTP request,
`client` retries and limits, `answers` the cache on disk, and `source` the label source.
"""
