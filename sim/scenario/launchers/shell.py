"""The text of a shell script as commands and their words, before anything in them is expanded.

Only what launch scripts are made of (POSIX shell command language, IEEE Std 1003.1, chapter 2, and Bash's arrays):
quotes, comments, continued lines, lists, redirections and here-documents. Each letter remembers its line, so that a
flag which comes out of a variable is still told at the line that it was written in.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hwmodels.refused import Refused

BARE, DOUBLE, SINGLE, UNKNOWN = range(4)
"""How a letter is quoted: not at all, so that it expands and splits; so that it expands; so that it is itself; or it is
part of what only a shell could expand."""


class Letter(NamedTuple):
    """A letter, its line (from 1), and how it is quoted."""

    text: str
    line: int
    quoting: int = BARE


Letters = list[Letter]


class Word(NamedTuple):
    """One word of a command. quoted: it is a word even when nothing is in it."""

    letters: Letters
    line: int
    quoted: bool = False

    @property
    def text(self) -> str:
        """As it reads, without its quotes."""
        return "".join(letter.text for letter in self.letters)


@dataclass(frozen=True)
class Command:
    """Words up to what ends them. array: NAME= or NAME+= of a list in parentheses, whose items are then the words.
    end: the operator after it; join: the one before."""

    words: tuple[Word, ...]
    line: int
    join: str = ";"
    end: str = ";"
    array: str = ""


def letters(text: str) -> Letters:
    """The letters of a file's text."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [Letter(each, number) for number, line in enumerate(lines, 1) for each in f"{line}\n"][:-1]


def commands(text: Sequence[Letter]) -> Iterator[Command]:
    """The commands of a text, one after another. Raises Refused for a quote or a bracket that nothing closes."""
    return _Reader([*text, Letter("\n", text[-1].line if text else 1)]).commands()


OPERATORS = (";;", "&&", "||", ";", "&", "|", "(", ")", "\n")
CLOSES = {"(": ")", "{": "}"}


class _Reader:
    """Goes through letters once."""

    def __init__(self, text: Letters) -> None:
        self.text, self.at = text, 0
        self.until: list[str] = []  # ends of here-documents that begin after this line

    def commands(self) -> Iterator[Command]:
        words: list[Word] = []
        join = ";"
        while self.at < len(self.text):
            here = self.text[self.at]
            word, end, array = self._word(), "", ""
            if word is not None:
                words.append(word)
                if word.text.endswith("=") and self._peek() == "(" and not word.quoted:
                    array, words = word.text, self._items()
                    end = ";"
            else:
                end = self._operator()
            if end:
                line = words[0].line if words else here.line
                if words or array or end in (")", ";;"):
                    yield Command(tuple(words), line, join, ";" if end == "\n" else end, array)
                    join = ";" if end == "\n" else end
                words = []

    def _peek(self, size: int = 1) -> str:
        """The next letters as far as they are bare."""
        part = self.text[self.at : self.at + size]
        return "".join(letter.text for letter in part if letter.quoting == BARE)

    def _operator(self) -> str:
        """The operator that stands next, passed over; "" where there is only blank space or a comment."""
        for operator in OPERATORS:
            if self._peek(len(operator)) == operator:
                self.at += len(operator)
                if operator == "\n":
                    self._documents()
                return operator
        self.at += 1
        return ""

    def _items(self) -> list[Word]:
        """Words in parentheses, over as many lines as they take."""
        line = self.text[self.at].line
        self.at += 1
        words: list[Word] = []
        while self.at < len(self.text):
            if self._peek() == ")":
                self.at += 1
                return words
            word = self._word()
            if word is not None:
                words.append(word)
            elif self._peek() != ")":
                self._operator()
        raise Refused("a ( is never closed", "", line)

    def _word(self) -> Word | None:
        """The word that begins here, or None where an operator does; blanks, comments and redirections before it are
        passed over."""
        while True:
            self._blanks()
            begin = self.at
            inside, quoted = self._letters()
            if self._peek() not in ("<", ">") and self._peek(2) != "&>":
                return Word(inside, self.text[begin].line, quoted) if self.at > begin else None
            text = "".join(letter.text for letter in inside)
            self._redirection()
            if text and not text.isdigit():
                return Word(inside, self.text[begin].line, quoted)

    def _blanks(self) -> None:
        while True:
            if self._peek() in (" ", "\t"):
                self.at += 1
            elif self._peek(2) == "\\\n":
                self.at += 2
            elif self._peek() == "#":
                while self._peek() not in ("\n", ""):
                    self.at += 1
            else:
                return

    def _letters(self) -> "tuple[Letters, bool]":
        """Letters of a word, and whether some are quoted."""
        out: Letters = []
        quoted = False
        while (here := self._peek()) or self.at < len(self.text):
            if here and (here in " \t\n;|()<>" or here == "&"):
                break
            if self._peek(2) == "\\\n":
                self.at += 2
            elif here == "\\":
                out += [Letter(each.text, each.line, SINGLE) for each in self.text[self.at + 1 : self.at + 2]]
                self.at += 2
            elif here in ("'", '"'):
                out += self._quoted(here)
                quoted = True
            elif here == "$" and self._peek(2)[1:] in CLOSES:
                out += self._bracketed()
            elif here == "`":
                out += self._ticks()
            else:
                out.append(self.text[self.at])
                self.at += 1
        return out, quoted

    def _quoted(self, mark: str) -> Letters:
        """Letters between two marks."""
        line, out = self.text[self.at].line, Letters()
        self.at += 1
        while self.at < len(self.text) and self._peek() != mark:
            here = self.text[self.at]
            if mark == '"' and here.text == "\\" and self.at + 1 < len(self.text):
                after = self.text[self.at + 1]
                if after.text in '"\\$`':
                    out.append(after._replace(quoting=SINGLE))
                elif after.text != "\n":
                    out += [here._replace(quoting=DOUBLE), after._replace(quoting=DOUBLE)]
                self.at += 2
            elif mark == '"' and self._peek(2) in ("$(", "${"):
                out += [letter._replace(quoting=DOUBLE) for letter in self._bracketed()]
            else:
                out.append(here._replace(quoting=DOUBLE if mark == '"' else SINGLE))
                self.at += 1
        if self.at >= len(self.text):
            raise Refused(f"a {mark} is never closed", "", line)
        self.at += 1
        return out

    def _bracketed(self) -> Letters:
        """$(...) or ${...} with all that is in it."""
        begin, open_ = self.at, self.text[self.at + 1].text
        depth, self.at = 1, self.at + 2
        while self.at < len(self.text) and depth:
            here = self.text[self.at].text
            depth += (here == open_) - (here == CLOSES[open_])
            self.at += 1
        if depth:
            raise Refused(f"a ${open_} is never closed", "", self.text[begin].line)
        return self.text[begin : self.at]

    def _ticks(self) -> Letters:
        begin = self.at
        self.at += 1
        while self.at < len(self.text) and self._peek() != "`":
            self.at += 1
        self.at += 1
        return self.text[begin : self.at]

    def _redirection(self) -> None:
        """Passed over with its target; a here-document is passed over when its line ends."""
        here = ""
        while self._peek() and self._peek() in "<>&":
            here += self._peek()
            self.at += 1
        strip = here == "<<" and self._peek() == "-"
        self.at += strip
        self._blanks()
        target, _ = self._letters()
        if here == "<<":
            self.until.append("".join(letter.text for letter in target))

    def _documents(self) -> None:
        """Here-documents that begin in this line, passed over."""
        for end in self.until:
            while self.at < len(self.text):
                line = ""
                while self.at < len(self.text) and self.text[self.at].text != "\n":
                    line += self.text[self.at].text
                    self.at += 1
                self.at += 1
                if line.strip() == end:
                    break
        self.until = []
