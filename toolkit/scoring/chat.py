"""How a model wants a conversation written: MEDITRON's messages, or the chat template of any Hugging Face tokenizer.

Decides the text of a conversation, where in it the answer begins, and its token ids; leaves what is said to `prompts`
and `targets`. A template is foreign code: it is run in Jinja's sandbox, and tried in a process of its own first.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import files
from toolkit.errors import DataError

if TYPE_CHECKING:
    from toolkit import tokenizer as tokenizers

START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE, CONFIG, WHOLE = "chat_template.jinja", "tokenizer_config.json", "tokenizer.json"
ROLES = {"system": "system", "user": "question", "assistant": "answer"}  # Hugging Face's names: MEDITRON's

MESSAGES = (
    "{%- set names = {'system': 'system', 'user': 'question', 'assistant': 'answer'} -%}\n"
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + names[message['role']] + '\\n' + message['content'] + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>answer\\n' -}}{%- endif -%}\n"
)
"""MEDITRON's messages (paper section 4.2; released finetuning code), as a template: `<|im_start|>`, the role, a line's
end, the text, `<|im_end|>`, a line's end. Roles are `system`, `question` and `answer`.
"""

_TRIAL = "Which of the two is a vitamin?\nA. Retinol\nB. Titin\nAnswer:"
_TRIAL_ANSWER = "Retinol is one.\nA"
_TRIAL_S = 20  # wall-clock seconds of the process that tries a template
_TRIAL_CPU_S, _TRIAL_BYTES = 5, 1 << 30
_LIMIT = 1 << 20  # characters of one template

Turn = tuple[str, str]
"""(role, text); the role is `system`, `user` or `assistant`."""


@dataclass(frozen=True, kw_only=True)
class Chat:
    """One way of writing conversations. `special` are the control tokens that may stand in what it writes; `stop` are
    those that end an answer. `begin` and `end` are what a template gets as `bos_token` and `eos_token`. `opening` is
    what it writes in front of an answer's text, though not when it asks for one (an empty thought, for instance).
    """

    name: str
    template: str
    special: tuple[str, ...]
    stop: tuple[str, ...]
    begin: str = ""
    end: str = ""
    opening: str = ""
    new: tuple[str, ...] = field(default=())  # those of `special` that the tokenizer must be given

    @cached_property
    def _compiled(self) -> Any:
        return compiled(self.template, self.name)

    def text(self, turns: Sequence[Turn], *, opened: bool = False) -> str:
        """`turns` as text; `opened`: and the beginning of the answer that is to follow. Raises `DataError`."""
        words = [{"role": role, "content": self.harmless(text)} for role, text in turns]
        return render(self._compiled, words, opened=opened, begin=self.begin, end=self.end, where=self.name)

    def harmless(self, text: str) -> str:
        """`text` in which no control token is spelled: a reader that knows them would take it for the token."""
        for name in self.special:
            if name in text:
                text = text.replace(name, name[0] + " " + name[1:])
        return text

    def divided(self, turns: Sequence[Turn], *, at_once: bool = False) -> tuple[str, str]:
        """What asks for an answer to `turns`, as (what comes before the last turn's text, the rest): the first is the
        same for every question behind the same turns. `at_once`: nothing but the answer's text is to follow.
        """
        *before, (role, _) = turns
        mark = "\ue000question\ue001"
        head = self.text([*before, (role, mark)], opened=True).partition(mark)[0]
        whole = self.text(turns, opened=True) + (self.opening if at_once else "")
        return (head, whole[len(head) :]) if whole.startswith(head) else ("", whole)

    def answer(self, turns: Sequence[Turn], text: str) -> tuple[str, str]:
        """(what comes before, the answer's message): training has its loss on the second, which is the message with
        what marks its beginning, its role and its end, as the paper has it.

        Raises `DataError` for a template in which no answer follows what asks for it.
        """
        before, asked = self.text(turns), self.text(turns, opened=True)
        whole = self.text([*turns, ("assistant", text)])
        if not whole.startswith(asked) or not asked.startswith(before):
            raise DataError(
                "a conversation with an answer does not begin as the one that asks for it",
                where=self.name,
                why=f"asking ends in {asked[-60:]!r}, and with the answer there stands {whole[len(before) :][:60]!r}",
                do="use a template whose add_generation_prompt ends where the answer begins",
            )
        rest = whole[len(asked) :]
        if self.harmless(text).strip() not in rest:
            raise DataError("the template leaves the answer out, or changes it", where=self.name, why=f"{rest[:80]!r}")
        return before, whole[len(before) :]


def messages(special: Sequence[str] = (START, END)) -> Chat:
    """MEDITRON's own."""
    return Chat(name="messages", template=MESSAGES, special=tuple(special), stop=(END,), new=(START, END))


def remove(folder: Path) -> None:
    """Take the chat template away from a tokenizer's folder."""
    (folder / TEMPLATE).unlink(missing_ok=True)
    if "chat_template" in (config := _config(folder / CONFIG)):
        files.write_json(folder / CONFIG, {name: value for name, value in config.items() if name != "chat_template"})


def with_system(template: str, text: str) -> str:
    """`template`, with a system message that says `text` in front of conversations that begin without one. Whoever
    gets the template asks as the training did.
    """
    # Jinja reads JSON's escapes, but not the two halves in which JSON escapes an emoji.
    said = f"[{{'role': 'system', 'content': {json.dumps(text, ensure_ascii=False)}}}]"
    return (
        "{%- if messages[0]['role'] != 'system' -%}\n"
        f"{{%- set messages = {said} + messages -%}}\n"
        "{%- endif -%}\n" + template
    )


def of(place: str | Path, *, tokenizer: tokenizers.Tokenizer | tokenizers.JsonTokenizer | None = None) -> Chat | None:
    """The chat of a Hugging Face folder, a `tokenizer_config.json` or a `.jinja` file; None where a folder has none.

    `tokenizer` is the one that will encode what it writes, where that is not the folder's own. Raises `DataError` for
    a file that cannot be read, and for a template that is broken, endless, greedy, or has no place for an answer.
    """
    place = Path(place)
    folder = place if place.is_dir() else place.parent
    config = _config(place if place.suffix == ".json" else folder / CONFIG)
    more = _config(folder / WHOLE).get("added_tokens")
    if place.is_dir() and not (place / TEMPLATE).is_file() or place.suffix == ".json":
        template = _named(config.get("chat_template"), place)
        if template is None and place.is_dir():
            return None
    else:
        template = _read(place / TEMPLATE if place.is_dir() else place)
    if template is None:
        raise DataError("no chat template in this file", where=place, do="give one that has 'chat_template'")
    if template == MESSAGES:
        return messages(_controls(config, tokenizer, more))
    begin, end = _text(config.get("bos_token")), _text(config.get("eos_token"))
    if tokenizer is not None:
        begin, end = tokenizer.piece(tokenizer.bos_id), tokenizer.piece(tokenizer.eos_id)
    found = tried(template, begin=begin, end=end, where=place)
    known = _controls(config, tokenizer, more)
    used = tuple(name for name in known if name in found)
    made = Chat(
        name=str(place),
        template=template,
        special=known,
        stop=(),
        begin=begin,
        end=end,
        new=tuple(name for name in used if tokenizer is not None and name not in _controls({}, tokenizer)),
    )
    before, last = made.answer([("user", _TRIAL)], _TRIAL_ANSWER)
    ahead, _, behind = last.rpartition(_TRIAL_ANSWER)
    opening = (before + ahead).removeprefix(made.text([("user", _TRIAL)], opened=True))
    stop = tuple(name for name in used if name in behind)
    # Blanks alone are left to the answer's surface forms: a tokenizer may merge them with its first token.
    return dataclasses.replace(made, stop=stop, opening=opening if opening.strip() else "")


def encode(tokenizer: tokenizers.Tokenizer | tokenizers.JsonTokenizer, text: str, special: Sequence[str]) -> list[int]:
    """Ids of what a chat wrote: control tokens named in `special` by their ids, what stands between as it is.

    The same ids as those of Hugging Face's tokenizer of the same folder, without what that adds in front.
    """
    if not special:
        return tokenizer.encode(text)
    ids: list[int] = []
    for part in _divider(tuple(special)).split(text):
        if part in special:
            ids.append(tokenizer.id(part))
        elif part:
            ids += tokenizer.encode(part)
    return ids


def _divider(special: tuple[str, ...]) -> re.Pattern[str]:
    names = sorted(special, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, names)) + ")")  # re keeps the last few hundred patterns by itself


def compiled(template: str, where: object) -> Any:
    """The template in the sandbox that transformers uses as well. Raises `DataError`."""
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """transformers' tag around what a model says: here it changes nothing."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: object) -> None:
        raise jinja2.TemplateError(str(message))

    try:
        env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
        )
        env.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
        env.globals["raise_exception"] = refuse
        return env.from_string(template)
    except (jinja2.TemplateError, RecursionError, ValueError) as err:
        line = f"line {err.lineno}: " if isinstance(err, jinja2.TemplateSyntaxError) else ""
        raise DataError("the chat template is broken", where=str(where), why=f"{line}{err}"[:300]) from None


def render(made: Any, words: list[dict[str, str]], *, opened: bool, begin: str, end: str, where: object) -> str:
    """What a compiled template makes of messages. Raises `DataError` with the template's own words where it fails."""
    try:
        text: str = made.render(
            messages=words, add_generation_prompt=opened, bos_token=begin, eos_token=end, tools=None
        )
        return text
    except Exception as err:  # foreign code: it can raise anything
        why = f"{type(err).__name__}: {err}"[:300]
        raise DataError("the chat template fails", where=str(where), why=why, do="get another template") from None


def tried(template: str, *, begin: str, end: str, where: object) -> str:
    """What the template makes of a trial conversation, in a process that is given little time and memory.

    Raises `DataError`: broken, endless, greedy.
    """
    import subprocess

    if len(template) > _LIMIT:
        raise DataError(f"a chat template of {len(template):,} characters", where=str(where), do="get the right file")
    words = [{"role": "user", "content": _TRIAL}, {"role": "assistant", "content": _TRIAL_ANSWER}]
    told = json.dumps({"template": template, "words": words, "begin": begin, "end": end})
    command = [sys.executable, "-c", "from toolkit.scoring.chat import _trial; _trial()"]
    root = str(Path(__file__).resolve().parents[2])
    try:
        done = subprocess.run(
            command, input=told.encode(), capture_output=True, timeout=_TRIAL_S, cwd=root, check=False
        )
    except subprocess.TimeoutExpired:
        raise _hostile(where, f"after {_TRIAL_S} s it had not written one conversation") from None
    try:
        reply = json.loads(done.stdout)
    except ValueError:
        raise _hostile(where, f"the process that tried it ended with {done.returncode}") from None
    if "error" in reply:
        raise DataError(reply["error"], where=str(where), why=reply["why"])
    return str(reply["text"])


def _hostile(where: object, why: str) -> DataError:
    return DataError("the chat template takes too much time or memory", where=str(where), why=why, do="get another one")


def _trial() -> None:
    """The process that tries a template: stdin has it, stdout gets what it wrote or what is wrong with it."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_TRIAL_BYTES, _TRIAL_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_TRIAL_CPU_S, _TRIAL_CPU_S))
    told = json.loads(sys.stdin.buffer.read())
    try:
        made = compiled(told["template"], "")
        text = render(made, told["words"], opened=False, begin=told["begin"], end=told["end"], where="")
        text += render(made, told["words"][:1], opened=True, begin=told["begin"], end=told["end"], where="")
        reply = {"text": text}
    except DataError as err:
        reply = {"error": err.what, "why": str(err.why)}
    sys.stdout.write(json.dumps(reply))


def _controls(
    config: dict[str, Any], tokenizer: tokenizers.Tokenizer | tokenizers.JsonTokenizer | None, added: Any = None
) -> tuple[str, ...]:
    """Names of control tokens: of the tokenizer, and of the configuration that came with a template, or of the `added`
    tokens of its tokenizer.json, where newer folders have them alone.
    """
    names: list[str] = []
    if tokenizer is not None:
        own = (tokenizer.bos_id, tokenizer.eos_id, *tokenizer.added.values())
        names += [tokenizer.piece(number) for number in own if tokenizer.is_control(number)]
    decoder, more = config.get("added_tokens_decoder"), config.get("additional_special_tokens")
    names += _special(decoder.values() if isinstance(decoder, dict) else ())
    names += [_text(entry) for entry in more] if isinstance(more, list) else []
    names += [_text(config.get(f"{name}_token")) for name in ("bos", "eos")]
    names += _special(added if isinstance(added, list) else ())
    return tuple(name for name in dict.fromkeys(names) if len(name) > 1)


def _special(entries: Iterable[Any]) -> list[str]:
    return [_text(entry) for entry in entries if isinstance(entry, dict) and entry.get("special")]


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as err:
        raise DataError("cannot be read as JSON", where=path, why=str(err)[:200]) from None
    if not isinstance(found, dict):
        raise DataError("must be a JSON object", where=path)
    return found


def _named(value: Any, where: Path) -> str | None:
    """Some tokenizers have several templates, by name."""
    if isinstance(value, list):
        found = {one.get("name"): one.get("template") for one in value if isinstance(one, dict)}
        value = found.get("default")
    if value is None or isinstance(value, str):
        return value
    raise DataError(f"'chat_template' must be text, not {type(value).__name__}", where=where)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError("no such chat template", where=path) from None
    except (OSError, ValueError) as err:
        raise DataError("the chat template cannot be read", where=path, why=str(err)[:200]) from None


def _text(value: Any) -> str:
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""
