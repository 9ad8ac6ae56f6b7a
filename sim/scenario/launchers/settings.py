"""What a launch file sets: each flag or key with its value and its line, and what has been made of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hwmodels.refused import Refused, plain

LARGEST = 1 << 31
"""Of any count or size in a launch file."""


class Note(NamedTuple):
    """One thing that a scenario does not say of a launch file. line: from 1, 0 for none; word: as it is written."""

    line: int
    word: str
    why: str


class Setting(NamedTuple):
    """values: of a flag, its words; of a key, its value alone. word: the flag or key as it is written; written: the
    same of values, where they stand for others."""

    values: tuple[Any, ...]
    line: int
    word: str
    written: tuple[Any, ...] = ()

    @property
    def shown(self) -> str:
        """As somebody would read it back."""
        return " ".join((self.word, *(str(value) for value in self.written or self.values)))


class Settings:
    """Settings by name. What is read is taken as understood; what nobody reads is told by `rest`.

    file: in messages. spell: a name as one would write it in such a file, for what is missing.
    """

    def __init__(self, file: str, settings: Mapping[str, Setting], spell: str = "--{}", joint: str = "-") -> None:
        self.file, self.settings, self.spell, self.joint = file, dict(settings), spell, joint
        self.notes: list[Note] = []
        self.read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.settings

    def named(self, name: str) -> str:
        """A name as it is written, or would be."""
        return self.settings[name].word if name in self.settings else self.spell.format(name.replace("_", self.joint))

    def values(self, name: str) -> tuple[Any, ...]:
        """The words of a flag, or the value of a key; () where it is not set, or to nothing."""
        self.read.add(name)
        setting = self.settings.get(name)
        values = setting.values if setting else ()
        return () if values == (None,) else values

    def note(self, name: str, why: str) -> None:
        """Tell something of a setting, or of what stands for it where it is not set."""
        setting = self.settings.get(name)
        self.notes.append(Note(setting.line, setting.shown, why) if setting else Note(0, self.named(name), why))

    def admit(self, name: str, why: str, unsaid: str) -> None:
        """The same; unsaid: what comes before it where the setting is not there."""
        self.note(name, why if name in self.settings else f"{unsaid}{why}")

    def refusal(self, name: str, why: str) -> Refused:
        """A refusal at the place of a setting."""
        setting = self.settings.get(name)
        return Refused(plain(why), self.file, setting.line if setting else 0, plain(self.named(name)))

    def word(self, name: str, default: str = "", legal: Sequence[str] = ()) -> str:
        """One word, in small letters where it must be one of `legal`."""
        values = self.values(name)
        if not values:
            return default
        word = str(values[0])
        self._settled(name, word)
        if legal and word.lower() not in legal:
            raise self.refusal(name, f"found {word!r}; legal: {', '.join(legal)}")
        return word.lower() if legal else word

    def words(self, name: str) -> tuple[str, ...]:
        """All words, those of a list and those that commas part included."""
        parts = [item for value in self.values(name) for item in (value if isinstance(value, list) else [value])]
        for part in parts:
            self._settled(name, str(part))
        return tuple(word for part in parts for word in str(part).replace(",", " ").split())

    def whole(self, name: str, default: int = 0, least: int = 1) -> int:
        """A whole number; the default where it is not set."""
        values = self.values(name)
        if not values:
            return default
        number = _whole(values[0])
        if number is None or len(values) > 1:
            self._settled(name, str(values[0]))
            shown = " ".join(map(str, values))
            raise self.refusal(name, f"expected a whole number; found {shown!r}")
        if not least <= number <= LARGEST:
            raise self.refusal(name, f"expected a whole number from {least} to {LARGEST}; found {number}")
        return number

    def needed(self, name: str, what: str, *others: str) -> int:
        """A whole number without which there is no scenario, under its name or one of `others`. what: to say of it."""
        for each in (name, *others):
            if self.values(each):
                return self.whole(each)
        raise Refused(f"{self.named(name)} is missing{what}", self.file)

    def number(self, name: str, default: float = 0.0) -> float:
        """A number that is 0 or more."""
        values = self.values(name)
        if not values:
            return default
        try:
            value = float(str(values[0]))
        except ValueError:
            value = -1.0
        if not 0 <= value <= LARGEST:
            self._settled(name, str(values[0]))
            raise self.refusal(name, f"expected a number, 0 or more; found {values[0]!r}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Whether a flag is there, or what a key says."""
        if name not in self.settings:
            self.read.add(name)
            return default
        values = self.values(name)
        if self.settings[name].values == (None,):
            return default
        word = str(values[0]).lower() if values else "true"
        self._settled(name, word)
        if word not in ("true", "false", "1", "0"):
            raise self.refusal(name, f"expected true or false; found {word!r}")
        return word in ("true", "1")

    def _settled(self, name: str, word: str) -> None:
        """Raises Refused for a value that only a shell could know."""
        if "$" in word or "`" in word:
            what = word.strip("${}")
            hint = f"add {what}=VALUE" if what.isidentifier() else "write its value there"
            raise self.refusal(name, f"is {word}, which the file does not say; {hint}")

    def rest(self) -> Iterator[tuple[str, Setting]]:
        """Settings that nobody has read, with their names, in the order of the file."""
        unread = [(name, setting) for name, setting in self.settings.items() if name not in self.read]
        yield from sorted(unread, key=lambda pair: pair[1].line)


def _whole(value: Any) -> int | None:
    """A number that is whole, however it is written."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        number = float(str(value))
        return int(str(value)) if str(value).lstrip("-").isdigit() else int(number) if number.is_integer() else None
    except (ValueError, OverflowError):
        return None
