"""``kd push RUN NAME``: upload a student with its model card to the Hugging Face Hub. Nothing is sent unasked."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kd.errors import KDError
from kd.export import folder
from kd.run.directory import RunDirectory

if TYPE_CHECKING:
    from huggingface_hub import HfApi

READ = ("config.yaml", "environment.json", "metrics.json", "predictions.parquet", "model")


def main(arguments: list[str]) -> int:
    """Say what would be uploaded, ask, and upload it in one commit."""
    parser = argparse.ArgumentParser(
        prog="kd push",
        description="Upload a finished run's student, its tokenizer and its model card to the Hugging Face Hub. The "
        "repository is private, and nothing is uploaded before you have agreed.",
    )
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("name", metavar="NAME", help="repository: USER/NAME, ORGANISATION/NAME, or NAME")
    parser.add_argument("--exports", help="kinds of kd export to upload too, joined by commas, such as onnx,int8")
    parser.add_argument("--public", action="store_true", help="make the repository public (default: private)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(options.name)
    except HFValidationError as error:
        raise KDError(f"expected a name such as USER/NAME, got '{options.name}' ({error}); correct it") from error
    files = files_of(RunDirectory.finished(options.run, READ), options.exports)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))  # the library reads it only once
    sizes = {name: len(found) if isinstance(found, bytes) else found.stat().st_size for name, found in files.items()}
    for name, size in sizes.items():
        print(f"{size / 1e3:11,.1f} kB  {name}")
    visible = "everyone can read" if options.public else "is private"
    print(f"{sum(sizes.values()) / 1e3:11,.1f} kB  in all, to {api.endpoint}/{options.name}, which {visible}")
    print("Read README.md first: it has the command of the run, with the paths in it.")
    if not options.yes and not sys.stdin.isatty():
        raise KDError("nothing is uploaded before you have agreed; add --yes")
    with sentences(api, options.name):
        old = [name for name in exports_there(api, options.name) if name not in files]
        for name in old:
            print(f"  deleted     {name} (of an earlier push)")
        if not (options.yes or agreed()):
            print("nothing was uploaded")
            return 0
        address = upload(api, options.name, files, old, options.public)
    print(f"uploaded: {address}")
    return 0


def agreed() -> bool:
    """Ask, and return whether the answer is yes. The end of the input is a no."""
    try:
        return input("Upload these files? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def files_of(run: RunDirectory, exports: str | None) -> dict[str, Path | bytes]:
    """Return what is uploaded, by its name in the repository.

    Raises:
        KDError: an export is not there, or is damaged.
    """
    found: dict[str, Path | bytes] = below(run.model, run.model)
    if "README.md" not in found:  # an early kd wrote none
        from kd.report.model_card import model_card

        found["README.md"] = model_card(run).encode()
    for kind in exports.split(",") if exports else ():
        place = run.path / "exports" / kind
        if kind not in folder.MODELS or not folder.is_export(place):
            raise KDError(f"--exports: expected an export in '{place}', found none; make it: kd export {run.path}")
        folder.read(place)  # compares the checksums
        found |= below(place, run.path)
    return found


def below(place: Path, root: Path) -> dict[str, Path | bytes]:
    """Return the files of a folder by their names below the root. Links are left out: they may lead out of the run."""
    files = (path for path in sorted(place.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(root).as_posix(): path for path in files}


def exports_there(api: HfApi, name: str) -> list[str]:
    """Return the files below exports/ in a repository; none if it is not there yet."""
    from huggingface_hub.errors import RepositoryNotFoundError

    owner = api.whoami()["name"]  # check the token before the upload
    try:
        found = api.model_info(name if "/" in name else f"{owner}/{name}").siblings or []
    except RepositoryNotFoundError:
        return []
    return [file.rfilename for file in found if file.rfilename.startswith("exports/")]


def upload(api: HfApi, name: str, files: dict[str, Path | bytes], old: list[str], public: bool) -> str:
    """Make the repository if it is not there, upload files and delete old ones in one commit, and return its address.

    Raises:
        KDError: the repository is there already, and is public or private against what was asked for.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repository = api.create_repo(name, private=not public, exist_ok=True).repo_id
    if public == api.repo_info(repository).private:
        found, advice = ("private", "leave out --public") if public else ("public", "add --public")
        raise KDError(f"the repository '{repository}' is {found} already; {advice}, or choose another name")
    added = [CommitOperationAdd(path, content) for path, content in files.items()]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *added,
        *(CommitOperationDelete(path) for path in old),
    ]
    commit = api.create_commit(repository, operations, commit_message="Upload a student that kd has trained")
    return f"{commit.repo_url}, commit {commit.oid}"


@contextmanager
def sentences(api: HfApi, name: str) -> Iterator[None]:
    """Turn what the hub refuses within the block into one sentence.

    Raises:
        KDError: there is no token, the hub refuses it, or cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        yield
    except KDError:
        raise
    except LocalTokenNotFoundError as error:
        raise KDError("expected a token of the hub, found none; run hf auth login, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        reason = error.server_message or str(error).partition("\n")[0]
        advice = {401: "give another token", 403: "give a token that may write there"}.get(error.response.status_code)
        raise KDError(
            f"{api.endpoint} refused the upload to '{name}' with {error.response.status_code} ({reason}); "
            f"{advice or 'correct it, or try again later'}"
        ) from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise KDError(f"cannot upload to {api.endpoint} ({reason}); check the network and HF_ENDPOINT") from error
