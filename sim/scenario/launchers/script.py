"""What a launch script runs: its commands with variables, arrays and simple conditions put in.

Bash's own rules (IEEE Std 1003.1, chapter 2.6, Word Expansions; Bash Reference Manual, 3.5) as far as a text says them
by itself. What only a shell could know, such as $(hostname) or a variable that nobody sets, stays as it is written, and
whoever needs its value says so.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from hwmodels.refused import Refused
from sim.scenario.launchers.arithmetic import number, truth
from sim.scenario.launchers.settings import Note
from sim.scenario.launchers.shell import BARE, DOUBLE, UNKNOWN, Command, Letter, Letters, Word, commands, letters

LETTERS = 1 << 17
"""Of all that a script expands to at most; a few lines of A=$A$A would make billions."""
DEPTH = 8
"""Of defaults inside defaults, and of commands inside the words of commands."""
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")
VARIABLE = re.compile(
    r"\$(?:\{(?P<word>[A-Za-z_][A-Za-z0-9_]*|[0-9@*])(?P<all>\[[@*]\])?(?:(?P<how>:?[-=+?])(?P<other>.*))?\}"
    r"|(?P<plain>[A-Za-z_][A-Za-z0-9_]*|[0-9@*]))\Z",
    re.DOTALL,
)
OPENS = re.compile(r"\$(?:\{|\(\(|\(|[A-Za-z_][A-Za-z0-9_]*|[0-9@*])|`")
BEFORE = (
    "export",
    "declare",
    "local",
    "readonly",
    "typeset",
    "set",
    "eval",
    "exec",
    "time",
    "command",
    "builtin",
    "{",
    "}",
)
"""Words before what a command really is."""
LOOPS = ("for", "while", "until", "select")

Values = dict[str, list[Word]]


class Script:
    """A script gone through once. given: variables that stand instead of what it assigns to them.

    launched: its commands with all their words; notes: what was not understood; seen: variables that it has.
    """

    def __init__(self, text: Sequence[Letter], given: Mapping[str, str]) -> None:
        self.given = {name: [Word(letters(value), 0, True)] for name, value in given.items()}
        self.values: Values = dict(self.given)
        self.launched: list[tuple[Word, ...]] = []
        self.notes: list[Note] = []
        self.seen: set[str] = set()
        self.size = 0
        self.blocks: list[_Block] = []
        self.status: bool | None = True
        self._run(text, 0)

    def _run(self, text: Sequence[Letter], depth: int) -> None:
        for command in commands(text):
            if not self._steered(command):
                self._executed(command, depth)

    # --- conditions ---------------------------------------------------------------------------------------------------

    def _steered(self, command: Command) -> bool:
        """Whether a command is only a word of if, case or a loop, or stands in a branch that is not taken."""
        first = command.words[0].text if command.words and not command.array else ""
        block = self.blocks[-1] if self.blocks else None
        if block and block.kind == "case" and block.waits:
            if first == "esac":
                self.blocks.pop()
            else:
                block.pattern(command)
            return True
        if first in ("if", "case", *LOOPS):
            self._opened(first, command)
            return True
        if block and (closed := block.word(first)):
            if closed == "end":
                self.blocks.pop()
            elif len(command.words) > 1:
                rest = Command(command.words[1:], command.words[1].line, ";", command.end)
                if first == "elif":
                    block.ask(self._tested(rest))
                elif not self._steered(rest):
                    self._executed(rest, 0)
            self._ended(command)
            return True
        if block and block.asks:
            block.ask(self._tested(command), command.join)
            return True
        skipped = command.join in ("&&", "||") and self.status is not (command.join == "&&")
        if skipped or not all(each.taken for each in self.blocks):
            self._ended(command)
            return True
        return False

    def _ended(self, command: Command) -> None:
        if command.end == ";;" and self.blocks and self.blocks[-1].kind == "case":
            self.blocks[-1].waits = True

    def _opened(self, first: str, command: Command) -> None:
        taken = all(block.taken for block in self.blocks)
        if first == "if":
            block = _Block("if", command.line)
            self.blocks.append(block)
            rest = Command(command.words[1:], command.line, ";", command.end)
            block.ask(self._tested(rest))
        elif first == "case":
            value = "".join(word.text for word in self.expanded(command.words[1:2]))
            self.blocks.append(_Block("case", command.line, value))
            self.blocks[-1].first(command)
        else:
            self.blocks.append(_Block(first, command.line))
            if taken:
                self._note(command, first, "loops are not followed: what is in this one is left out")

    def _tested(self, command: Command) -> bool | None:
        """Whether a test holds; None, with a note, where only a shell could say."""
        words = [_known(word.text) for word in self.expanded(command.words)]
        answer = truth(words)
        if answer is None and all(block.taken for block in self.blocks[:-1]) and command.words:
            self._note(command, " ".join(words[:4]), "a condition that only a shell can answer; taken as false")
        return answer

    # --- commands -----------------------------------------------------------------------------------------------------

    def _executed(self, command: Command, depth: int) -> None:
        """Keep what a command assigns, or the command."""
        words, self.status = list(command.words), True
        if command.array:
            self._assign(command.array, self.expanded(words))
        elif words and words[0].text in ("[", "[[", "test"):
            self.status = self._tested(command)
        else:
            self._called(words, command, depth)
        self._ended(command)

    def _called(self, words: list[Word], command: Command, depth: int) -> None:
        while words and words[0].text in BEFORE:
            words = words[1:]
        while words and (match := ASSIGNMENT.match(words[0].text)):
            inside = Word(words[0].letters[match.end() :], words[0].line, words[0].quoted)
            self._assign(match[0], [_joined(self.expanded([inside], split=False), inside.line)])
            words = words[1:]
        if not words:
            return
        if words[0].text in ("source", "."):
            self._note(command, " ".join(word.text for word in words[:2]), "is another file, which is not read")
            return
        whole = tuple(self.expanded(words))
        if whole and whole[0].text not in ("echo", "printf", ":"):
            self.launched.append(whole)
            self._inside(whole, depth)

    def _inside(self, words: Sequence[Word], depth: int) -> None:
        """Commands in a word, as of bash -c "..."."""
        for word in words if depth < DEPTH else ():
            if word.quoted and " --" in word.text and any(mark in word.text for mark in (".py", "torchrun")):
                self._run([letter._replace(quoting=BARE) for letter in word.letters], depth + 1)

    def _assign(self, target: str, words: list[Word]) -> None:
        name, more = target.rstrip("+="), target.endswith("+=")
        self.seen.add(name)
        if name in self.given:
            return
        old = self.values.get(name, []) if more else []
        if more and len(words) == 1 and len(old) == 1:
            words, old = [_joined([*old, *words], words[0].line)], []
        self.values[name] = [*old, *words]

    def _note(self, command: Command, word: str, why: str) -> None:
        self.notes.append(Note(command.line, word, why))

    # --- expansion ----------------------------------------------------------------------------------------------------

    def expanded(self, words: Sequence[Word], split: bool = True, depth: int = 0) -> list[Word]:
        """Words with variables put in. split: values that are not quoted fall apart at blank space."""
        out: list[Word] = []
        for word in words:
            if (whole := self._listed(word)) is not None:
                bare = split and word.letters[0].quoting == BARE
                out += [part for item in whole for part in _split(_bare(item.letters), item)] if bare else whole
                self.size += sum(len(item.letters) for item in whole)
                continue
            inside = self._letters(word.letters, depth)
            self.size += len(inside)
            if self.size > LETTERS:
                raise Refused(f"expands to more than {LETTERS} letters", "", word.line)
            quoted = word.quoted or any(letter.quoting != BARE for letter in word.letters)
            out += _split(inside, word) if split else [Word(inside, word.line, quoted)]
        return out

    def _listed(self, word: Word) -> list[Word] | None:
        """The items of "${NAME[@]}", each a word; None for other words."""
        match = VARIABLE.match(word.text)
        if not match or not match["all"] or match["how"] or word.letters[0].quoting not in (BARE, DOUBLE):
            return None
        self.seen.add(match["word"])
        return self.values.get(match["word"])

    def _letters(self, text: Letters, depth: int) -> Letters:
        out: Letters = []
        at = 0
        while at < len(text):
            end = _end(text, at) if text[at].text in "$`" and text[at].quoting in (BARE, DOUBLE) else at
            if end == at:
                out.append(text[at])
                at += 1
                continue
            written = text[at:end]
            value = self._value(written, depth)
            if value is None:  # it stays one word
                out += [each._replace(quoting=UNKNOWN) for each in written]
            else:
                out += [each if each.quoting == UNKNOWN else each._replace(quoting=text[at].quoting) for each in value]
            if len(out) + self.size > LETTERS:
                raise Refused(f"expands to more than {LETTERS} letters", "", text[at].line)
            at = end
        return out

    def _value(self, written: Letters, depth: int) -> Letters | None:
        """What $..., ${...} or $((...)) stands for; None where the script does not say."""
        text = "".join(letter.text for letter in written)
        if text.startswith("$(("):
            inside = self._letters(written[3:-2], depth + 1) if depth < DEPTH else []
            sum_ = number("".join(letter.text for letter in inside), self._plain)
            return None if sum_ is None else [Letter(each, written[0].line) for each in str(sum_)]
        match = VARIABLE.match(text)
        if not match:
            return None
        name = match["word"] or match["plain"]
        self.seen.add(name)
        value = _text(self.values[name]) if name in self.values else None
        if name in ("@", "*"):
            return []
        if how := match["how"]:
            return self._otherwise(name, value, how, written[match.start("other") : -1], depth)
        return value

    def _otherwise(self, name: str, value: Letters | None, how: str, other: Letters, depth: int) -> Letters | None:
        """${NAME:-other} and its likes."""
        there = value is not None and (value != [] or ":" not in how)
        if how.endswith("+"):
            return self._letters(other, depth + 1) if there and depth < DEPTH else []
        if there or how.endswith("?") or depth >= DEPTH:
            return value
        answer = self._letters([each for each in other if each.text not in "\"'"], depth + 1)
        if how.endswith("="):
            self.values[name] = [Word(answer, other[0].line if other else 0, True)]
        return answer

    def _plain(self, name: str) -> str:
        """The value of a variable, "" where it has none."""
        return "".join(letter.text for letter in _text(self.values.get(name, [])))


class _Block:
    """An if, a case or a loop that is not closed yet. taken: whether its commands are run now; asks: its condition is
    being read; waits: a pattern comes next."""

    def __init__(self, kind: str, line: int, value: str = "") -> None:
        self.kind, self.line, self.value = kind, line, value
        self.taken = self.done = False
        self.asks = kind == "if"
        self.waits = kind == "case"
        self.answer: bool | None = None

    def ask(self, answer: bool | None, join: str = ";") -> None:
        """One more test of a condition."""
        if join == "&&":
            self.answer = bool(self.answer) and bool(answer)
        elif join == "||":
            self.answer = bool(self.answer) or bool(answer)
        else:
            self.answer = answer

    def word(self, word: str) -> str:
        """What a word of the shell does to the block: "end", "next" or nothing."""
        if word == {"if": "fi", "case": "esac"}.get(self.kind, "done"):
            return "end"
        if self.kind != "if":
            return "next" if word == "do" and self.kind in LOOPS else ""
        if word == "then":
            self.asks, self.taken = False, bool(self.answer) and not self.done
            self.done = self.done or self.taken
            return "next"
        if word in ("elif", "else"):
            self.taken, self.asks = word == "else" and not self.done, word == "elif"
            self.answer = None
            return "next"
        return ""

    def first(self, command: Command) -> None:
        """The pattern that stands in the line of `case ... in`, if any does."""
        words = command.words[3:]
        if words:
            self.pattern(Command(words, command.line, command.join, command.end))

    def pattern(self, command: Command) -> None:
        """A pattern of a case: `a|b)`."""
        matches = any(fnmatchcase(self.value, word.text) for word in command.words)
        self.answer = bool(self.answer) or matches
        if command.end == ")":
            self.waits, self.taken = False, bool(self.answer) and not self.done
            self.done = self.done or self.taken
            self.answer = None


def _end(text: Letters, at: int) -> int:
    """Where the expansion that begins at a letter ends; the same place for a $ that begins none."""
    rest = "".join(letter.text for letter in text[at : at + 64])
    match = OPENS.match(rest)
    if not match:
        return at
    if match[0] == "`":
        ends = (i for i in range(at + 1, len(text)) if text[i].text == "`")
        return next(ends, len(text) - 1) + 1
    if match[0] not in ("${", "$(", "$(("):
        return at + match.end()
    open_, depth = match[0][1], 0
    close = {"{": "}", "(": ")"}[open_]
    for i in range(at + 1, len(text)):
        depth += (text[i].text == open_) - (text[i].text == close)
        if not depth:
            return i + 1
    return at


def _text(words: Sequence[Word]) -> Letters:
    """The letters of a variable's value; items of an array with a space between."""
    return [
        letter for i, word in enumerate(words) for letter in (*((Letter(" ", word.line),) if i else ()), *word.letters)
    ]


def _bare(text: Letters) -> Letters:
    """Letters that fall apart at blank space, but for what only a shell could expand."""
    return [each if each.quoting == UNKNOWN else each._replace(quoting=BARE) for each in text]


def _joined(words: Sequence[Word], line: int) -> Word:
    return Word([letter for word in words for letter in word.letters], line, True)


def _split(text: Letters, word: Word) -> Iterator[Word]:
    """The words that expanded letters fall into at bare blank space."""
    part: Letters = []
    some = False
    for letter in text:
        if letter.quoting == BARE and letter.text.isspace():
            if part:
                yield Word(part, part[0].line, word.quoted)
            some, part = some or bool(part), []
        else:
            part.append(letter)
    if part or (word.quoted and not some):
        yield Word(part, part[0].line if part else word.line, word.quoted)


def _known(word: str) -> str:
    """A word of a test: a variable that is not set is empty."""
    return "" if re.fullmatch(r"\$(\w+|\{\w+\})", word) else word
