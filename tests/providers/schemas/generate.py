"""Cuts what the tests need out of the providers' published API descriptions.

    python3 generate.py FOLDER

FOLDER holds the descriptions, by these names:

    openai.json    https://github.com/openai/openai-openapi (openapi.yaml at f85dbe2, /embeddings cut out)
    cohere.json    https://github.com/cohere-ai/cohere-developer-experience (cohere-openapi.yaml at e814c8a)
    voyage.yml     https://github.com/voyage-ai/voyage-openapi (version 1.1)
    mistral.json   https://github.com/mistralai/platform-docs-public (openapi.yaml at 222f4ba, /v1/embeddings cut out)
    tei.json       https://github.com/huggingface/text-embeddings-inference (docs/openapi.json at 0d124dc)

Jina, Nomic and Gemini publish none that could be taken: jina.json, nomic.json and gemini.json are written by hand, from the pages
that they name. Needs PyYAML.
"""

import json
import pathlib
import sys

import yaml

HERE = pathlib.Path(__file__).parent
SOURCES = {
    "openai": ("openai.json", "openai/openai-openapi@f85dbe2:openapi.yaml", {"/embeddings": "/embeddings"}),
    "cohere": (
        "cohere.json",
        "cohere-ai/cohere-developer-experience@e814c8a:cohere-openapi.yaml",
        {"/v2/embed": "/v2/embed", "/v2/rerank": "/v2/rerank"},
    ),
    "voyage": ("voyage.yml", "voyage-ai/voyage-openapi 1.1", {"/embeddings": "/embeddings", "/rerank": "/rerank"}),
    "mistral": ("mistral.json", "mistralai/platform-docs-public@222f4ba:openapi.yaml", {"/embeddings": "/v1/embeddings"}),
    "tei": (
        "tei.json",
        "huggingface/text-embeddings-inference@0d124dc:docs/openapi.json",
        {path: path for path in ["/embed", "/embed_sparse", "/rerank", "/v1/embeddings"]},
    ),
}
PROSE = {"description", "example", "examples", "title", "deprecated", "writeOnly", "readOnly"}


def schema(value, names=False):
    """Without what does not constrain. Below `properties` keys are names, and not keywords."""
    if isinstance(value, list):
        return [schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: schema(item, names=key == "properties" and not names)
        for key, item in value.items()
        if names or not (key in PROSE or key.startswith("x-"))
    }
    if not names:
        # Voyage: a text or a list is not an object.
        if kept.get("type") == "object" and "oneOf" in kept:
            del kept["type"]
        # TEI's descriptions write `default: "null"`.
        kept.pop("default", None)
    return kept


def refs(value):
    if isinstance(value, list):
        return set().union(*map(refs, value), set())
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"].rsplit("/", 1)[1]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*map(refs, value.values()), set())


def body(message, spec):
    while "$ref" in message:
        message = spec["components"]["responses"][message["$ref"].rsplit("/", 1)[1]]
    content = message.get("content", {}).get("application/json")
    return schema(content["schema"]) if content else None


def closed(request, components):
    """A request's object, which may have no further fields: a misspelt one would pass unseen."""
    if "$ref" in request:
        name = request["$ref"].rsplit("/", 1)[1]
        components[name] = closed(components[name], components)
        return request
    return {"additionalProperties": False, **request}


def main(folder):
    for provider, (file, source, paths) in SOURCES.items():
        text = (pathlib.Path(folder) / file).read_text()
        spec = yaml.safe_load(text) if file.endswith("yml") else json.loads(text)
        known = {name: schema(item) for name, item in spec.get("components", {}).get("schemas", {}).items()}
        operations = {}
        for path, theirs in paths.items():
            operation = spec["paths"][theirs]["post"]
            responses = {str(status): body(answer, spec) for status, answer in operation["responses"].items()}
            operations[path] = {
                "request": body(operation["requestBody"], spec),
                "responses": {status: answer for status, answer in responses.items() if answer},
            }
        needed, seen = refs(operations), set()
        while needed - seen:
            name = (needed - seen).pop()
            seen.add(name)
            needed |= refs(known[name])
        components = {name: known[name] for name in sorted(seen)}
        for operation in operations.values():
            operation["request"] = closed(operation["request"], components)
        out = {"source": source, "operations": operations, "components": {"schemas": components}}
        (HERE / f"{provider}.json").write_text(json.dumps(out, indent=1) + "\n")


main(sys.argv[1])
