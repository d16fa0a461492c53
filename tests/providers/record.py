"""Records what the providers' own Python clients, and Milvus's, send for what Wick can be asked for: recorded.json.

    python3 record.py sdk [URL]
    python3 record.py pymilvus [URL]

URL is that of a running server.mjs; without it one is started. Each set needs an environment of its own: the newest clients, and
those of the time of pymilvus.model, which calls what newer ones no longer have (`return_documents` of Cohere's,
`from mistralai import Mistral`):

    sdk        pip install openai==3.57.0 cohere==7.3.1 voyageai==0.5.0 mistralai==3.7.0 google-genai==3.6.1 nomic==3.9.0
                   huggingface-hub==2.4.0 numpy==2.4.6
    pymilvus   pip install openai==3.57.0 cohere==5.15.0 voyageai==0.5.0 mistralai==1.12.4 google-genai==1.75.0 nomic==3.9.0
                   numpy==2.4.6
               pip install --no-deps pymilvus.model==0.3.4

Jina has no client of its own, and Milvus's stands for it. Each case says in Wick's own words what is asked for, and
tests/it/recorded.rs makes Wick send it. The address that is kept is the one that the client would have used: its own, as the library
has it, in place of the server's here. Where a library has no option for an address, it is changed in the library: search for
`patched`.

The server validates what is sent by the published descriptions, which some clients do not keep to: voyageai sends null for what was
not asked. What it refuses is printed, and recorded all the same; an answer is of no use here.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import types
import urllib.request

HERE = pathlib.Path(__file__).parent
OUT = HERE / "recorded.json"
KEY = "sk-test-0123456789"
TEXTS = ["The cat sat on the mat.", "Grüße aus Köln 🚀"]
QUERY = "Where is the cat?"
# TEI has no address but its user's.
TEI = "http://tei.test:8080"
HEADERS = ["authorization", "x-goog-api-key", "content-type"]


class Recorder:
    def __init__(self, url):
        self.url = url
        self.cases = []

    def at(self, provider):
        """Where the provider is played."""
        return f"{self.url}/~id=record/{provider}"

    def log(self):
        with urllib.request.urlopen(f"{self.url}/log?id=record") as answer:
            requests = json.load(answer)["requests"]
        # Nomic's client first asks who it is.
        return [request for request in requests if request["method"] == "POST"]

    def sent(self, start):
        """The requests since, once they have been answered."""
        while True:
            requests = self.log()[start:]
            if all("status" in request for request in requests):
                return requests
            time.sleep(0.01)

    def __call__(self, name, library, home, options, call, send):
        """`home` is the client's own address."""
        start = len(self.log())
        try:
            send()
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        requests = self.sent(start)
        assert len(requests) == 1, f"{name}: {len(requests)} requests"
        [request] = requests
        prefix = f"/~id=record/{request['provider']}"
        assert request["url"].startswith(prefix)
        self.cases.append(
            {
                "name": name,
                "library": " with ".join(f"{name} {importlib.metadata.version(name)}" for name in library),
                "asked": {"options": options, **call},
                "method": request["method"],
                "url": home.rstrip("/") + request["url"].removeprefix(prefix),
                "headers": {name: request["headers"][name] for name in HEADERS if name in request["headers"]},
                "body": request["body"],
            }
        )


def asked(provider, model, **options):
    """Wick's options."""
    return {"provider": provider, "model": model, "apiKey": KEY, **options}


def embed(role, texts=TEXTS):
    """A call of Wick's."""
    return {"texts": texts, "role": role}


def rerank(top_k=None):
    return {"query": QUERY, "documents": TEXTS, **({"topK": top_k} if top_k else {})}


# ---- the providers' own clients ----------------------------------------------------------------------------------------------


def openai(record):
    from openai import OpenAI

    client = OpenAI(api_key=KEY, base_url=record.at("openai"))
    home = str(OpenAI(api_key=KEY).base_url)
    model = "text-embedding-3-small"

    def case(what, options, **theirs):
        send = lambda: client.embeddings.create(model=model, input=TEXTS, **theirs)
        record(f"openai {what}", ["openai"], home, asked("openai", model, **options), embed("document"), send)

    case("texts", {})
    case("dimensions", {"dimensions": 256}, dimensions=256)
    case("float", {"encodingFormat": "float"}, encoding_format="float")
    case("base64", {"encodingFormat": "base64"}, encoding_format="base64")
    case("user", {"extra": {"user": "someone"}}, user="someone")


def cohere(record):
    import cohere
    from cohere.environment import ClientEnvironment

    client = cohere.ClientV2(KEY, base_url=record.at("cohere"))
    home = ClientEnvironment.PRODUCTION.value
    model = "embed-v4.0"

    def case(what, role, options, **theirs):
        send = lambda: client.embed(model=model, texts=TEXTS, **theirs)
        record(f"cohere {what}", ["cohere"], home, asked("cohere", model, **options), embed(role), send)

    document = {"input_type": "search_document"}
    case("documents", "document", {}, **document, embedding_types=["float"])
    case("queries", "query", {}, input_type="search_query", embedding_types=["float"])
    case("documents, no type of numbers", "document", {}, **document)
    case("task", "plain", {"task": "clustering"}, input_type="clustering", embedding_types=["float"])
    case("dimensions", "document", {"dimensions": 256}, **document, embedding_types=["float"], output_dimension=256)
    for dtype in ["int8", "uint8", "binary", "ubinary"]:
        case(dtype, "document", {"outputDtype": dtype}, **document, embedding_types=[dtype])
    case("base64", "document", {"encodingFormat": "base64"}, **document, embedding_types=["base64"])
    for how in ["none", "start", "end"]:
        theirs = {"embedding_types": ["float"], "truncate": how.upper()}
        case(f"truncate {how}", "document", {"truncate": how}, **document, **theirs)
    extra = {"max_tokens": 512, "priority": 3}
    case("extra", "document", {"extra": extra}, **document, embedding_types=["float"], **extra)

    model = "rerank-v4.0-pro"
    for what, top in [("rerank", None), ("rerank top", 1)]:
        theirs = {"top_n": top} if top else {}
        send = lambda: client.rerank(model=model, query=QUERY, documents=TEXTS, **theirs)
        record(f"cohere {what}", ["cohere"], home, asked("cohere", model), rerank(top), send)


def voyage(record):
    import voyageai
    from voyageai.util import get_default_base_url

    client = voyageai.Client(KEY, base_url=record.at("voyage"))
    home = get_default_base_url(KEY)
    model = "voyage-4"

    def case(what, role, options, **theirs):
        send = lambda: client.embed(TEXTS, model=model, **theirs)
        record(f"voyageai {what}", ["voyageai"], home, asked("voyage", model, **options), embed(role), send)

    document = {"input_type": "document"}
    case("documents", "document", {}, **document)
    case("queries", "query", {}, input_type="query")
    case("texts", "plain", {})
    # What it says without being asked.
    base64 = {"encodingFormat": "base64"}
    same = {**base64, "truncate": "end"}
    case("documents alike", "document", same, **document)
    case("dimensions", "document", {**same, "dimensions": 256}, **document, output_dimension=256)
    for dtype in ["float", "int8", "uint8", "binary", "ubinary"]:
        case(dtype, "document", {**same, "outputDtype": dtype}, **document, output_dtype=dtype)
    case("truncate none", "document", {**base64, "truncate": "none"}, **document, truncation=False)

    model = "rerank-2.5"
    for what, options, top, theirs in [
        ("rerank", {}, None, {}),
        ("rerank top", {"truncate": "end"}, 1, {"top_k": 1}),
        ("rerank truncate none", {"truncate": "none"}, None, {"truncation": False}),
    ]:
        send = lambda: client.rerank(QUERY, TEXTS, model=model, **theirs)
        record(f"voyageai {what}", ["voyageai"], home, asked("voyage", model, **options), rerank(top), send)


def mistral(record):
    from mistralai.client import Mistral
    from mistralai.client.sdkconfiguration import SERVER_GLOBAL, SERVERS

    client = Mistral(api_key=KEY, server_url=record.at("mistral"))
    home = SERVERS[SERVER_GLOBAL]

    def case(what, model, options, **theirs):
        send = lambda: client.embeddings.create(model=model, inputs=TEXTS, **theirs)
        record(f"mistralai {what}", ["mistralai"], home, asked("mistral", model, **options), embed("document"), send)

    case("texts", "mistral-embed", {})
    case("dimensions", "codestral-embed", {"dimensions": 256}, output_dimension=256)
    for dtype in ["float", "int8", "uint8", "binary", "ubinary"]:
        case(dtype, "codestral-embed", {"outputDtype": dtype}, output_dtype=dtype)
    for form in ["float", "base64"]:
        case(f"encoded as {form}", "mistral-embed", {"encodingFormat": form}, encoding_format=form)
    case("metadata", "mistral-embed", {"extra": {"metadata": {"a": "b"}}}, metadata={"a": "b"})


def gemini(record):
    from google import genai

    client = genai.Client(api_key=KEY, http_options={"base_url": record.at("gemini")})
    home = genai.Client(api_key=KEY)._api_client._http_options.base_url

    def case(what, model, role, options, texts=TEXTS, **theirs):
        send = lambda: client.models.embed_content(model=model, contents=texts, config=theirs or None)
        call = embed(role, texts)
        record(f"google-genai {what}", ["google-genai"], home, asked("gemini", model, **options), call, send)

    first, second = "gemini-embedding-001", "gemini-embedding-2"
    document = {"task_type": "RETRIEVAL_DOCUMENT"}
    case("texts", first, "plain", {})
    case("documents", first, "document", {}, **document)
    case("queries", first, "query", {}, task_type="RETRIEVAL_QUERY")
    case("task", first, "plain", {"task": "CLUSTERING"}, task_type="CLUSTERING")
    case("title", first, "document", {"title": "A title"}, **document, title="A title")
    case("dimensions", first, "document", {"dimensions": 768}, **document, output_dimensionality=768)
    case("second model, one text", second, "plain", {"dimensions": 768}, texts=TEXTS[:1], output_dimensionality=768)
    case("second model, texts", second, "plain", {})


def nomic(record):
    home = nomic_home(record)
    from nomic import embed as client

    def case(what, role, options, **theirs):
        model = "nomic-embed-text-v1.5"
        send = lambda: client.text(ONE, model=model, **theirs)
        record(f"nomic {what}", ["nomic"], home, asked("nomic", model, **options), embed(role, ONE), send)

    case("documents", "document", {}, task_type="search_document")
    case("queries", "query", {}, task_type="search_query")
    case("task", "plain", {"task": "clustering"}, task_type="clustering")
    same = {"truncate": "end"}
    case("dimensions", "document", {**same, "dimensions": 256}, task_type="search_document", dimensionality=256)
    case("truncate end", "document", same, task_type="search_document", long_text_mode="truncate")
    case("truncate none", "document", {"truncate": "none"}, task_type="search_document", long_text_mode="mean")


# Nomic's client makes a request of each of a few texts.
ONE = TEXTS[:1]


def nomic_home(record):
    """Lets Nomic's client know a key and an address: a file below the home folder, and a variable. Gives its own address."""
    home = pathlib.Path(tempfile.mkdtemp())
    os.environ.update(HOME=str(home), ATLAS_API_PATH=record.at("nomic"))
    from nomic.cli import nomic_base_path, tenants

    nomic_base_path.mkdir()
    credentials = {"token": KEY, "refresh_token": None, "tenant": "production", "expires": None}
    (nomic_base_path / "credentials").write_text(json.dumps(credentials))
    return f"https://{tenants['production']['api_domain']}"


def tei(record):
    """As the client of a server of one's own."""
    from huggingface_hub import InferenceClient

    client = InferenceClient(model=f"{record.at('tei')}/embed", token=KEY)

    def case(what, options, **theirs):
        send = lambda: client.feature_extraction(TEXTS, **theirs)
        options = asked("tei", "", baseUrl=TEI, **options)
        record(f"huggingface-hub {what}", ["huggingface-hub"], TEI, options, embed("document"), send)

    case("texts", {})
    case("dimensions", {"dimensions": 256}, dimensions=256)
    case("normalize", {"normalize": True}, normalize=True)
    case("prompt", {"extra": {"prompt_name": "query"}}, prompt_name="query")
    case("truncate none", {"truncate": "none"}, truncate=False)


# ---- Milvus's ----------------------------------------------------------------------------------------------------------------


def milvus_modules():
    """Its packages import every model that they have, and with them PyTorch. Patched: the packages are found, but not run."""
    folder = pathlib.Path(importlib.metadata.distribution("pymilvus.model").locate_file("pymilvus/model"))
    for name, path in [("model", folder), ("model.dense", folder / "dense"), ("model.reranker", folder / "reranker")]:
        module = types.ModuleType(f"pymilvus.{name}")
        module.__path__ = [str(path)]
        sys.modules[module.__name__] = module
    from pymilvus.model import utils

    def missing(package):
        raise ModuleNotFoundError(package)

    # Patched: it installs what it does not find, and looks for Google's client by a name that no module has.
    utils.prompt_install = missing
    utils.import_google = lambda: None


def milvus_openai(record):
    from openai import OpenAI
    from pymilvus.model.dense.openai import OpenAIEmbeddingFunction

    home = str(OpenAI(api_key=KEY).base_url)
    library = ["pymilvus.model", "openai"]
    for what, role, options, theirs in [
        ("documents", "document", {}, {}),
        ("queries", "query", {}, {}),
        ("dimensions", "document", {"dimensions": 256}, {"dimensions": 256}),
    ]:
        function = OpenAIEmbeddingFunction("text-embedding-3-small", KEY, record.at("openai"), **theirs)
        options = asked("openai", "text-embedding-3-small", **options)
        record(f"pymilvus openai {what}", library, home, options, embed(role), encoder(function, role))


def encoder(function, role):
    return lambda: (function.encode_queries if role == "query" else function.encode_documents)(TEXTS)


def milvus_cohere(record):
    # Its reranker takes no address. Patched: read where the client's module is.
    os.environ["CO_API_URL"] = record.at("cohere")
    from cohere.environment import ClientEnvironment
    from pymilvus.model.dense.cohere import CohereEmbeddingFunction
    from pymilvus.model.reranker.cohere import CohereRerankFunction

    home = ClientEnvironment.PRODUCTION.value
    library = ["pymilvus.model", "cohere"]
    model = "embed-english-v3.0"
    for what, role, options, theirs in [
        ("documents", "document", {}, {"embedding_types": ["float"]}),
        ("queries", "query", {}, {"embedding_types": ["float"]}),
        ("binary", "document", {"outputDtype": "binary"}, {"embedding_types": ["binary"]}),
        ("ubinary", "document", {"outputDtype": "ubinary"}, {"embedding_types": ["ubinary"]}),
        ("truncate", "document", {"truncate": "end"}, {"embedding_types": ["float"], "truncate": "END"}),
    ]:
        function = CohereEmbeddingFunction(model, KEY, base_url=record.at("cohere"), **theirs)
        options = asked("cohere", model, **options)
        # To the address before /v2/embed, which Wick does not use and the server does not have.
        record(f"pymilvus cohere {what}", library, home, options, embed(role), encoder(function, role))
    model = "rerank-v3.5"
    function = CohereRerankFunction(model, KEY)
    options = asked("cohere", model)
    record("pymilvus cohere rerank", library, home, options, rerank(1), lambda: function(QUERY, TEXTS, 1))


def milvus_voyage(record):
    from pymilvus.model.dense.voyageai import VoyageEmbeddingFunction
    from pymilvus.model.reranker.voyageai import VoyageRerankFunction
    from voyageai.util import get_default_base_url

    home = get_default_base_url(KEY)
    library = ["pymilvus.model", "voyageai"]
    model = "voyage-3-large"
    # What it says without being asked.
    base64 = {"encodingFormat": "base64"}
    same = {**base64, "dimensions": 1024}
    for what, role, options, theirs in [
        ("documents", "document", {}, {}),
        ("queries", "query", {}, {}),
        ("dimensions", "document", {**base64, "dimensions": 256}, {"dimension": 256}),
        ("binary", "document", {**same, "outputDtype": "binary"}, {"embedding_type": "binary"}),
        ("ubinary", "document", {**same, "outputDtype": "ubinary"}, {"embedding_type": "ubinary"}),
        ("truncate none", "document", {**same, "truncate": "none"}, {"truncate": False}),
    ]:
        function = VoyageEmbeddingFunction(model, KEY, base_url=record.at("voyage"), **theirs)
        options = asked("voyage", model, **options)
        record(f"pymilvus voyage {what}", library, home, options, embed(role), encoder(function, role))
    model = "rerank-2.5"
    function = VoyageRerankFunction(model, KEY)
    # Patched: it takes no address.
    function.client._params["base_url"] = record.at("voyage")
    options = asked("voyage", model, truncate="end")
    record("pymilvus voyage rerank", library, home, options, rerank(1), lambda: function(QUERY, TEXTS, 1))


def milvus_jina(record):
    from pymilvus.model.dense import jinaai
    from pymilvus.model.reranker import jinaai as reranker

    base = "https://api.jina.ai/v1"
    assert jinaai.API_URL == f"{base}/embeddings" and reranker.API_URL == f"{base}/rerank"
    # Patched: the address is a constant.
    jinaai.API_URL = f"{record.at('jina')}/embeddings"
    reranker.API_URL = f"{record.at('jina')}/rerank"
    library = ["pymilvus.model"]
    model = "jina-embeddings-v3"
    for what, role, options, theirs in [
        ("documents", "document", {}, {}),
        ("queries", "query", {}, {}),
        ("dimensions", "document", {"dimensions": 256, "lateChunking": False}, {"dimensions": 256}),
        ("late chunking", "document", {"lateChunking": True}, {"late_chunking": True}),
    ]:
        function = jinaai.JinaEmbeddingFunction(model, KEY, **theirs)
        options = asked("jina", model, **options)
        record(f"pymilvus jina {what}", library, base, options, embed(role), encoder(function, role))
    function = jinaai.JinaEmbeddingFunction(model, KEY, task="text-matching")
    options = asked("jina", model, task="text-matching")
    record("pymilvus jina task", library, base, options, embed("plain"), lambda: function(TEXTS))
    model = "jina-reranker-v2-base-multilingual"
    function = reranker.JinaRerankFunction(model, KEY)
    record("pymilvus jina rerank", library, base, asked("jina", model), rerank(1), lambda: function(QUERY, TEXTS, 1))


def milvus_mistral(record):
    from mistralai import Mistral
    from mistralai.sdkconfiguration import SERVER_EU, SERVERS
    from pymilvus.model.dense.mistralai import MistralAIEmbeddingFunction

    home = SERVERS[SERVER_EU]
    library = ["pymilvus.model", "mistralai"]
    for what, role, model, options, theirs in [
        ("documents", "document", "mistral-embed", {}, {}),
        ("queries", "query", "mistral-embed", {}, {}),
        ("dimensions", "document", "codestral-embed", {"dimensions": 256}, {"output_dimension": 256}),
        ("int8", "document", "codestral-embed", {"outputDtype": "int8"}, {"output_dtype": "int8"}),
    ]:
        function = MistralAIEmbeddingFunction(KEY, model, **theirs)
        # Patched: it takes no address.
        function.client = Mistral(api_key=KEY, server_url=record.at("mistral"))
        options = asked("mistral", model, **options)
        record(f"pymilvus mistral {what}", library, home, options, embed(role), encoder(function, role))


def milvus_gemini(record):
    from google import genai
    from google.genai.types import EmbedContentConfig
    from pymilvus.model.dense.gemini import GeminiEmbeddingFunction

    home = genai.Client(api_key=KEY)._api_client._http_options.base_url
    library = ["pymilvus.model", "google-genai"]
    model = "gemini-embedding-001"
    for what, role, options, theirs in [
        # What texts are for is its caller's to configure, whichever method is called.
        ("texts", "plain", {}, None),
        ("documents", "document", {}, EmbedContentConfig(task_type="RETRIEVAL_DOCUMENT")),
        ("queries", "query", {}, EmbedContentConfig(task_type="RETRIEVAL_QUERY")),
        ("dimensions", "plain", {"dimensions": 768}, EmbedContentConfig(output_dimensionality=768)),
    ]:
        function = GeminiEmbeddingFunction(model, KEY, theirs, http_options={"base_url": record.at("gemini")})
        options = asked("gemini", model, **options)
        record(f"pymilvus gemini {what}", library, home, options, embed(role), encoder(function, role))


def milvus_nomic(record):
    home = nomic_home(record)
    from pymilvus.model.dense.nomic import NomicEmbeddingFunction

    library = ["pymilvus.model", "nomic"]
    model = "nomic-embed-text-v1.5"
    document, query = NomicEmbeddingFunction(model), NomicEmbeddingFunction(model, task_type="search_query")
    shorter = NomicEmbeddingFunction(model, dimensions=256)
    for what, role, options, send in [
        ("documents", "document", {}, lambda: document.encode_documents(ONE)),
        ("queries", "query", {}, lambda: document.encode_queries(ONE)),
        ("queries, as a task", "query", {"dimensions": 768, "truncate": "end"}, lambda: query.encode_queries(ONE)),
        ("dimensions", "document", {"dimensions": 256, "truncate": "end"}, lambda: shorter.encode_documents(ONE)),
    ]:
        options = asked("nomic", model, **options)
        record(f"pymilvus nomic {what}", library, home, options, embed(role, ONE), send)


def milvus_tei(record):
    from pymilvus.model.dense.tei import TEIEmbeddingFunction
    from pymilvus.model.reranker.tei import TEIRerankFunction

    library = ["pymilvus.model"]
    # It speaks OpenAI's protocol, and knows neither a key nor a model.
    options = {"provider": "openai", "model": "a-model", "baseUrl": f"{TEI}/v1"}
    function = TEIEmbeddingFunction(record.at("tei"))
    for what, role in [("documents", "document"), ("queries", "query")]:
        record(f"pymilvus tei {what}", library, TEI, options, embed(role), encoder(function, role))
    function = TEIRerankFunction(record.at("tei"))
    options = {"provider": "tei", "baseUrl": TEI}
    record("pymilvus tei rerank", library, TEI, options, rerank(), lambda: function(QUERY, TEXTS))


SETS = {
    "sdk": [openai, cohere, voyage, mistral, gemini, nomic, tei],
    "pymilvus": [
        milvus_openai,
        milvus_cohere,
        milvus_voyage,
        milvus_jina,
        milvus_mistral,
        milvus_gemini,
        milvus_nomic,
        milvus_tei,
    ],
}


def written(sets):
    """A few lines for each case, so that a difference can be read."""
    text = lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True)
    lines = [["name", "library"], ["asked"], ["method", "url", "headers"], ["body"]]
    line = lambda case, names: ", ".join(f"{text(name)}: {text(case[name])}" for name in names)
    block = lambda case: "{" + ",\n ".join(line(case, names) for names in lines) + "}"
    listed = lambda cases: "[\n" + ",\n".join(block(case) for case in cases) + "\n]"
    return "{\n" + ",\n".join(f"{text(name)}: {listed(sets[name])}" for name in sorted(sets)) + "\n}\n"


def main(name, url=None):
    server = None
    if url is None:
        program = ["node", HERE / "server.mjs"]
        server = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        url = server.stdout.readline().strip()
    record = Recorder(url)
    if name == "pymilvus":
        milvus_modules()
    for cases in SETS[name]:
        cases(record)
    everything = json.loads(OUT.read_text()) if OUT.exists() else {}
    everything[name] = record.cases
    OUT.write_text(written(everything))
    print(f"{len(record.cases)} cases of {name}")
    if server:
        server.stdin.close()
        server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
