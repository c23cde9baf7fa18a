"""``kd completion bash|zsh``: print a script that completes commands, choices and options with Tab. Needs no torch."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from kd.errors import KDError

BASH = r"""# eval "$(kd completion bash)" in ~/.bashrc
_kd() {
    local line="${COMP_LINE:0:COMP_POINT}" found before
    local word="${line##* }"
    before="${word%"${word##*[=:]}"}"   # bash takes what follows a = for a word of its own
    COMPREPLY=()
    while IFS= read -r found; do
        COMPREPLY+=("${found#"$before"}")
        [[ $found == *[=.] ]] && compopt -o nospace
    done < <(kd completion query "$line" 2>/dev/null)
}
complete -o default -F _kd kd
"""
ZSH = r"""#compdef kd
# eval "$(kd completion zsh)" in ~/.zshrc, after compinit
_kd() {
    local -a found open
    found=(${(f)"$(kd completion query "${words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
    open=(${(M)found:#*[=.]})
    (( $#found )) || { _files; return }
    compadd -S '' -- $open
    compadd -- ${found:|open}
}
compdef _kd kd
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}


def main(arguments: list[str]) -> int:
    """Print a script, or for ``query LINE`` what may stand at the end of a line, which the scripts ask for."""
    if arguments[:1] == ["query"]:
        for word in candidates(" ".join(arguments[1:])):
            print(word)
        return 0
    parser = argparse.ArgumentParser(
        prog="kd completion",
        description="Print a script that completes commands, GROUP=CHOICE and options with Tab. Put "
        'eval "$(kd completion bash)" into ~/.bashrc, or the same with zsh into ~/.zshrc.',
    )
    parser.add_argument("shell", help="bash or zsh")
    shell = parser.parse_args(arguments).shell
    if shell not in SCRIPTS:
        raise KDError(f"expected one of the shells {', '.join(SCRIPTS)}, got '{shell}'; name one")
    print(SCRIPTS[shell], end="")
    return 0


def candidates(line: str) -> list[str]:
    """Return what may stand in place of the last word of a line; nothing where a file may stand."""
    _, *words = line.split(" ")
    if len(words) < 2:
        folder = Path(__file__).parent
        names = [file.stem for file in folder.glob("[a-z]*.py") if file.stem != "cache_build"]
        found: list[str] = sorted(names)
    elif words[-1].startswith("-"):
        found = options_of(words[0])
    else:
        found = overrides(words[-1]) if words[0] == "train" or words[:2] == ["cache", "build"] else []
    return [word for word in found if word.startswith((words or [""])[-1])]


def options_of(command: str) -> list[str]:
    """Return the names of a command's options, as its module and those that it imports from declare them.

    No module is imported.
    """
    own = ["--config-dir", "--cfg", "--multirun", "--hydra-help"] if command == "train" else []
    package = Path(__file__).parents[1]
    module = package / "commands" / f"{command}.py"
    text = module.read_text() if command.isidentifier() and module.is_file() else ""
    for place, names in re.findall(r"^ *from kd\.([\w.]+) import (.+)$", text, re.MULTILINE):
        folder = package.joinpath(*place.split("."))
        for path in (folder, *(folder / name for name in re.findall(r"\w+", names))):
            if path.with_suffix(".py").is_file() and "commands" not in place:
                text += path.with_suffix(".py").read_text()
            if path == package / "serving" / "limits":  # each field is an option
                fields = re.findall(r"^    (\w+): .+ = ", path.with_suffix(".py").read_text(), re.MULTILINE)
                own += [f"--{field.replace('_', '-')}" for field in fields]
    return sorted({*own, "--help", *re.findall(r'add_argument\(\s*"(--[\w-]+)"', text)})


def overrides(word: str) -> list[str]:
    """Return the groups, choices and options that begin with a word, as Hydra's own completion finds them.

    Hydra's scripts cannot be used: they call the program without a command.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra._internal.utils import create_config_search_path

    from kd.config.folder import configuration_folder

    loader = ConfigLoaderImpl(create_config_search_path(str(configuration_folder())))
    return sorted(BashCompletion(loader)._query("config", word))
