"""What machines read about a data set: the front matter of its card and its Croissant file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from videop2r_data.cards.card.facts import Facts
from videop2r_data.cards.card.licences import NOT_STATED, Pool, Upstream
from videop2r_data.files import LOCK_NAME, PREVIEW_CONFIG
from videop2r_data.schemas import (
    CONFIGS,
    DataType,
    QuestionColumns,
    Role,
    TraceGrammar,
    column_words,
    feature_info,
)

PAPER = "https://arxiv.org/abs/2511.11113"

# What a repository may hold besides the rows: clips, and the config `preview`.
PREVIEW_NAME = "preview/train-00000.parquet"
"""The one file of the preview. Outside of `data/`: the patterns of the other configs must not match it."""
PREVIEW_FILES = "preview/train-*.parquet"
TEXT_COLUMNS = ("sample_id", "problem", "solution", "observation", "think", "answer")
"""Columns of `sft` in the preview."""
PREVIEW_FEATURES: list[dict[str, Any]] = [
    {"name": "image", "dtype": "image"},
    {"name": "video", "dtype": "video"},
    *({"name": name, "dtype": "string"} for name in TEXT_COLUMNS),
]
"""Schema of the preview for `datasets`; cells of `image` and `video` hold bytes and a file name."""


def columns_of(models: Mapping[str, type[QuestionColumns]]) -> dict[str, str]:
    """Column -> what it holds, the same in every config that has it."""
    return column_words(models) | {"image": "preview: the image itself", "video": "preview: the clip itself"}


# The front matter of the card, for the Hub and for `datasets`.

WHAT = {
    "sft": "accepted traces, for supervised fine-tuning (the default)",
    "rl": "the questions alone, for reinforcement learning",
    "rejected": "every question that is not in `sft`, with the stage and the reason",
}

WHAT_PREVIEW = "a few accepted rows with their clips and images, to look at in the browser"


def title_of(recipe: dict[str, Any]) -> str:
    """Title of a recipe in one line; its name if it has no title."""
    return " ".join(recipe["title"].split()) or str(recipe["name"])


KEYS = frozenset(
    {
        *("pretty_name", "license", "license_name", "license_link", "language", "annotations_creators"),
        *("source_datasets", "task_categories", "tags", "size_categories", "configs", "dataset_info"),
    }
)
"""Keys of the front matter that this module writes; a person's own keys stay."""
_OF_EACH = ("process-aware", "chain-of-thought", "reasoning", "perception")
_OF_PERCEPTION = ("process-aware", "perception")
"""Of these, the tags of traces in which what is seen stands apart."""
TAGS = frozenset({*_OF_EACH, "synthetic", *(t.value for t in DataType)})
"""Tags that this module writes; a person's own tags stay."""


def _tags_of(grammar: TraceGrammar) -> list[str]:
    """Tags of every data set whose traces have this form."""
    sees = bool(grammar.of_role(Role.PERCEPTION))
    return [tag for tag in _OF_EACH if sees or tag not in _OF_PERCEPTION]


def front_matter(facts: Facts) -> dict[str, Any]:
    """The mapping between the `---` lines of the card."""
    recipe, configs = facts.lock.recipe, facts.configs
    tags = [
        *_tags_of(facts.grammar),
        *sorted(facts.lock.ledger.table),
        *(["synthetic"] if recipe["synthetic"] else []),
    ]
    sources = list(dict.fromkeys(hub for hub, _ in _origins(facts) if hub))
    return {
        "pretty_name": title_of(recipe),
        **_licence(facts),
        **({"language": list(facts.rows.languages)} if facts.rows.languages else {}),
        "annotations_creators": ["machine-generated"],
        **({"source_datasets": sources} if sources else {}),
        "task_categories": ["visual-question-answering", "video-text-to-text"],
        "tags": tags,
        "size_categories": [_size_category(configs["sft"]["rows"])],
        "configs": [
            {
                "config_name": name,
                # the digest is part of the key under which `datasets` caches a local folder: without it, a
                # folder that is rebuilt in place would go on giving its old rows
                "description": f"{WHAT[name]}; content sha256 {made['digest']}",
                "data_files": [{"split": "train", "path": f"data/{name}-*.parquet"}],
                **({"default": True} if name == "sft" else {}),
            }
            for name, made in configs.items()
        ]
        + _preview_config(facts),
        "dataset_info": [
            {
                "config_name": name,
                # a data set made before a column was added lacks it: what is declared must be there
                "features": [
                    info for info in feature_info(facts.models[name]) if info["name"] in made["columns"]
                ],
                "splits": [{"name": "train", "num_bytes": made["text_bytes"], "num_examples": made["rows"]}],
                "download_size": made["file_bytes"],
                "dataset_size": made["text_bytes"],
            }
            for name, made in configs.items()
        ]
        + _preview_info(facts),
    }


def _origins(facts: Facts) -> list[tuple[str, str]]:
    """(Hub id or empty, page) of the pools and sources of the rows, each once."""
    found: list[Pool | Upstream | None] = []
    for source in facts.rows.sources:
        found += [facts.collection(source.pool), source.upstream]
    return list(dict.fromkeys((one.hub, one.url) for one in found if one is not None))


def _licence(facts: Facts) -> dict[str, Any]:
    licence = facts.licence
    if not licence.shown:
        return {}
    out = {"license": licence.shown}
    if licence.name:
        out["license_name"] = licence.name
        if facts.published is not None:
            out["license_link"] = f"{facts.published.url}#sources-and-licences"
    return out


def _preview_config(facts: Facts) -> list[dict[str, Any]]:
    if facts.published is None or not facts.published.preview:
        return []
    files = [{"split": "train", "path": PREVIEW_FILES}]
    said = f"{WHAT_PREVIEW}; {facts.published.preview} rows of lock {facts.published.lock}"
    return [{"config_name": PREVIEW_CONFIG, "description": said, "data_files": files}]


def _preview_info(facts: Facts) -> list[dict[str, Any]]:
    if facts.published is None or not facts.published.preview:
        return []
    split = {"name": "train", "num_examples": facts.published.preview}
    return [{"config_name": PREVIEW_CONFIG, "features": PREVIEW_FEATURES, "splits": [split]}]


def _size_category(rows: int) -> str:
    steps = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in steps if rows < bound), "1M<n<10M")


# Croissant 1.0 of MLCommons, with PROV-O terms for the provenance. Paths are relative to the file, so that it
# holds for a local folder and for a repository. Date, publisher and address are those of the push: a local
# folder has none, and nothing here reads a clock.

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_LICENCES = 200
"""Licences listed at most: a pool may have a source per row."""
_TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "int32": "sc:Integer",
    "int64": "sc:Integer",
    "float64": "sc:Float",
}


def croissant(facts: Facts) -> dict[str, Any]:
    """The Croissant document of a data set, as JSON-LD."""
    lock, recipe = facts.lock, facts.lock.recipe
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": recipe["name"],
        "description": " ".join(recipe["description"].split()) or title_of(recipe),
        "license": _licences(facts),
        "version": recipe["version"],
        "citeAs": _cite(facts),
        **_address(facts),
        **({"inLanguage": list(facts.rows.languages)} if facts.rows.languages else {}),
        "keywords": sorted({*_tags_of(facts.grammar), *lock.ledger.table}),
        **({"isBasedOn": pages} if (pages := list(dict.fromkeys(url for _, url in _origins(facts)))) else {}),
        "isLiveDataset": False,
        "rai:dataCollection": "Questions of the pools below; traces written, verified and judged by models.",
        "rai:dataLimitations": "See the section Limits of README.md.",
        "prov:wasDerivedFrom": [
            {"@type": "prov:Entity", "prov:label": s.name, "prov:value": s.sha256} for s in lock.sources
        ],
        "prov:wasGeneratedBy": _activities(facts),
        "distribution": _files(facts),
        "recordSet": [_records(name, facts) for name in CONFIGS],
    }


def _licences(facts: Facts) -> str | list[str]:
    """The declared licence; if a source allows less, the traces' licence and then the sources'."""
    licence = facts.licence
    if not licence.held_back:
        return licence.declared or NOT_STATED
    sources = {f"{s.label}: {s.annotations.licence}" for s in facts.rows.sources}
    return [f"traces: {licence.declared}", *sorted(sources)[:_LICENCES]]


def _cite(facts: Facts) -> str:
    method = "VideoP2R, arXiv 2511.11113"
    if facts.published is None:
        return method
    title = title_of(facts.lock.recipe)
    return f"{title}, {facts.published.owner}, {facts.published.date.year}, {facts.published.url}. {method}"


def _address(facts: Facts) -> dict[str, Any]:
    """Address, publisher and date of a published data set; the paper's page for a local folder."""
    if facts.published is None:
        return {"url": PAPER}
    owner = {
        "@type": "sc:Organization",
        "name": facts.published.owner,
        "url": facts.published.url.rsplit("/datasets/", 1)[0] + f"/{facts.published.owner}",
    }
    return {
        "url": facts.published.url,
        "creator": owner,
        "publisher": owner,
        "datePublished": facts.published.date.isoformat(),
    }


def _activities(facts: Facts) -> list[dict[str, Any]]:
    """The build, then each step that called a model, with the models that served it."""

    def activity(label: str, agents: Iterable[str]) -> dict[str, Any]:
        listed = [{"@type": "prov:SoftwareAgent", "prov:label": agent} for agent in agents]
        return {"@type": "prov:Activity", "prov:label": label, "prov:wasAssociatedWith": listed}

    versions = [f"{name} {version}" for name, version in sorted(facts.lock.versions.items())]
    build = activity(f"p2r-data build, lock sha256 {facts.lock_sha256}", versions)
    return [build, *(activity(step, sorted(model.served)) for step, model in facts.lock.models.items())]


def _files(facts: Facts) -> list[dict[str, Any]]:
    def file(name: str, kind: str, sha256: str, **more: str) -> dict[str, Any]:
        names = {"@id": name, "name": name, "contentUrl": name}
        return {"@type": "cr:FileObject", **names, **more, "encodingFormat": kind, "sha256": sha256}

    parquet = "application/x-parquet"
    out = [file(LOCK_NAME, "application/json", facts.lock_sha256)]
    for name, known in sorted(facts.lock.files.items()):
        if PurePosixPath(name).suffix == ".parquet":
            out.append(file(name, parquet, known.sha256, contentSize=f"{known.bytes} B"))
    for config in CONFIGS:
        shards = [{"@id": name} for name in sorted(facts.lock.files) if name.startswith(f"data/{config}-")]
        out.append(
            {
                "@type": "cr:FileSet",
                "@id": f"{config}-files",
                "name": f"{config}-files",
                "containedIn": shards,
                "encodingFormat": parquet,
                "includes": f"data/{config}-*.parquet",
            }
        )
    return out


def _records(config: str, facts: Facts) -> dict[str, Any]:
    words = columns_of(facts.models)
    fields = []
    for info in feature_info(facts.models[config]):
        if info["name"] not in facts.configs[config]["columns"]:
            continue
        place = f"{config}/{info['name']}"
        source = {"fileSet": {"@id": f"{config}-files"}, "extract": {"column": info["name"]}}
        field = {"@type": "cr:Field", "@id": place, "name": place, "description": words[info["name"]]}
        kind, several = (info["list"], True) if "list" in info else (info["dtype"], False)
        listed = {"isArray": True, "arrayShape": "-1"} if several else {}
        if isinstance(kind, str):
            fields.append(field | {"dataType": _TYPES[kind], **listed, "source": source})
        else:
            fields.append(field | listed | {"subField": [_part(place, one, source) for one in kind]})
    return {
        "@type": "cr:RecordSet",
        "@id": config,
        "name": config,
        "description": WHAT[config],
        "field": fields,
    }


def _part(place: str, info: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """One column of the records that a list holds, as the Hub's own Croissant files have it."""
    name = f"{place}/{info['name']}"
    kind, several = (info["list"], True) if "list" in info else (info["dtype"], False)
    return {
        "@type": "cr:Field",
        "@id": name,
        "name": name,
        "dataType": _TYPES[kind],
        **({"isArray": True, "arrayShape": "-1"} if several else {}),
        "source": source | {"transform": {"jsonPath": info["name"]}},
    }
