"""The command `import`: a launch file of Megatron-LM, Megatron-Bridge, NeMo or torchtitan as a scenario.

Exit codes: 0 a scenario that loads; 2 wrong input, or a scenario that is written and refused when loaded, with why.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hwmodels.document import parse
from hwmodels.refused import Refused
from sim.cli.command import DONE, WRONG, Parser

PROG = "python -m sim import"

HELP = """\
usage: python -m sim import FILE [NAME=VALUE ...] --node NODE [--nodes N] [--fabric FABRIC] [--out SCENARIO.yaml]

A launch file as a scenario: a Megatron-LM script or its arguments (pretrain_gpt.py), a Megatron-Bridge or NeMo recipe
in YAML, or a torchtitan TOML; which of them it is, its content says. The scenario goes to stdout, or into --out; what
it does not say of the file, or what changes no step, is a comment at its top and a line on stderr, each with its line
there. docs/IMPORT.md has what becomes what.

  NAME=VALUE           a variable of the script (TP=4 stands instead of what it assigns), or a key of the recipe or the
                       job (model.context_parallel_size=2, training.seq_len=8192)

options:
  --node NODE          the machine, which no launch file names: see `python -m sim list nodes`
  --nodes N            how many of them, where the file does not say, or instead of what it says
  --fabric FABRIC      the network between them; without it nothing is said about switches
  --model MODEL        a known model instead of the file's dimensions (`python -m sim list models`)
  --vocabulary N       tokens of the vocabulary, where the file names only a tokenizer; they are padded as there
  --out SCENARIO.yaml  where it goes; a file there is replaced only if an import wrote it
"""


def import_(words: Sequence[str]) -> int:
    """Run what `words` say; the answer is the exit code."""
    from sim.scenario.launchers.machine import Machine
    from sim.scenario.launchers.scenario import Asked, read

    parser = Parser(PROG, worded=True, allow_abbrev=False)
    for option in ("--node", "--fabric", "--model"):
        parser.add_argument(option, default="")
    for option in ("--nodes", "--vocabulary"):
        parser.add_argument(option, type=_count, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_intermixed_args(words)
    files = [word for word in options.words if not _given(word)]
    if len(files) != 1:
        raise Refused(f"expected one launch file; found {', '.join(files) or 'none'}; see {PROG} --help")
    machine = Machine(options.node, options.nodes, options.fabric)
    given = dict(pair for word in options.words if (pair := _given(word)))
    imported = read(Path(files[0]), Asked(machine, options.model, options.vocabulary, given))
    _write(imported.text, options.out)
    for line in imported.lines:
        print(line, file=sys.stderr)
    return _checked(imported.text, str(options.out or "<scenario>"))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:12]) < 1 << 31:
        raise Refused(f"--nodes and --vocabulary are whole numbers, 1 or more; found {text!r}")
    return int(text)


def _given(word: str) -> tuple[str, str] | None:
    """NAME and VALUE of a word that has both."""
    match = re.match(r"([\w.\-]+)=(.*)\Z", word, re.DOTALL)
    return (match[1], match[2]) if match else None


def _write(text: str, out: Path | None) -> None:
    """To stdout, or into a file that is new or of an import. Raises Refused for others."""
    from sim.scenario.launchers.scenario import MARK

    if out is None:
        sys.stdout.write(text)
        return
    try:
        if out.exists() and not (out.is_file() and out.read_text(encoding="utf-8", errors="replace").startswith(MARK)):
            raise Refused("is there and no import wrote it, so it is not replaced; name another --out", str(out))
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"cannot be written: {error.strerror or error}", str(out)) from None


def _checked(text: str, name: str) -> int:
    """Whether the scenario loads; what is refused of it is told, a line each."""
    from sim.scenario.resolve import resolve

    try:
        resolve(parse(text, name), [], None)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return WRONG
    return DONE
