"""What a model wrote as plain text: without thoughts, markup and look-alike letters, and in pieces by question.

Decides what is decoration and where a new question begins; leaves what is an answer to `statements` and `extract`.
"""

from __future__ import annotations

import re
import unicodedata

# Letters of other alphabets that stand for a Latin one when they stand alone, and boxed letters of emoji sets.
_ALIKE = dict(zip("АВСЕНІЈΑΒΕΗΙ", "ABCEHIJABEHI", strict=True)) | {"🅰": "A", "🅱": "B", "🅲": "C", "🅳": "D", "🅴": "E"}
_ALONE = re.compile(rf"(?<!\w)[{''.join(_ALIKE)}]\ufe0f?(?!\w)")
_JOINED = re.compile(r"(?<![A-Za-z0-9])([A-J])(?=です|だ|で|が|は|是|为|正|项|項|选|選|가|이|번|입니다|정)")
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "′": "'", "：": ":"}) | {
    ord(c): None for c in "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f"
}
_QUOTES |= {
    ord("【"): "[",
    ord("】"): "]",
    ord("「"): '"',
    ord("」"): '"',
    ord("。"): ".",
    ord("，"): ",",
    ord("、"): ",",
}

# What opens and closes a thought; the answer is what follows the last that closes.
_CLOSE = (
    "</think>",
    "</thinking>",
    "</thought>",
    "</reasoning>",
    "</scratchpad>",
    "</analysis>",
    "<unused95>",
    "◁/think▷",
)
_CLOSE += ("<|end_of_thought|>", "[/think]", "<|channel|>final<|message|>", "assistantfinal")
_OPEN = ("<think>", "<thinking>", "<unused94>", "◁think▷", "<|begin_of_thought|>", "[think]", "<|channel|>analysis")
_OPEN += ("<thought>", "<scratchpad>")
_STOP = re.compile(
    r"<\|(?:im_end|eot_id|end_of_text|endoftext|end|eom_id|im_start|start_header_id|user|return)\|>"
    r"|</s>|<end_of_turn>|<start_of_turn>user|\[/?INST\]|<\|end▁of▁sentence\|>|<｜end▁of▁sentence｜>",
)
_LEAD = re.compile(
    r"\s*(?:<\|[a-z_]+\|>\s*(?:assistant|answer|final)?|<s>|\[/INST\]|<start_of_turn>\s*model|(?:assistant|AI|bot|"
    r"Response)\s*:)\s*",
    re.IGNORECASE,
)
_PROMPT = re.compile(r"\s*(?:<s>\s*)?\[INST\].*?\[/INST\]", re.DOTALL)  # repeated before the answer
_TAGGED = re.compile(
    r"[<\[]\s*(?:final[_ ]?)?(?:answer|choice|option|ans|letter|final|response|prediction|output)\s*[>\]]",
    re.IGNORECASE,
)
_LETTER_TAG = re.compile(r"<([A-J])>")
_TAG = re.compile(r"</?[a-zA-Z_][\w-]{0,20}\s*/?>|\[/[a-zA-Z_]{1,20}\]")
_LATEX_TEXT = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|mathit|mbox|bf|rm|textsf|texttt|fbox)\s*\{([^{}]*)\}"
)
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~")
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}|\\boxed\s+(\w)")
_LATEX_REST = re.compile(r"\\[()\[\]]|\$")

# Each begins with a literal character, which keeps the search fast.
_WORD = r"(?:(?:[Nn]ext|[Nn]ew|[Mm]edical|[Ss]ample|[Pp]ractice|[Aa]nother|[Ee]xample|[Tt]est|[Ff]ollow-up)\s+)?"
_ASKS = (
    rf"[ \t>#\d.)-]*{_WORD}(?:QUESTION|Question|question|Problem|PROBLEM|Example|Exercise|MCQ)\s*(?:#?\s*\d+)?\s*"
    r"(?::(?!\s*\(?[A-Ja-j]\)?[.)]?\s*(?:\n|$))|\.?\s*\n)"
    r"|[ \t]*Q\s*\d*\s*[:.)](?!\s*[A-Ja-j]\b)"
)
_PART = r"[ \t]*(?:Context|Abstract|Instructions?|User|Human|Input|Passage)\s*:"
_LINE = re.compile(rf"\n(?:(?P<asks>{_ASKS})|{_PART})")
_BEGIN = re.compile(_ASKS)
_HEADING = re.compile(
    rf"(?<!#)#{{1,6}}(?!#)\s{{0,9}}{_WORD}(?:(?P<asks>Question|Problem|Case|Example)|Instructions?|Input|Human|User|"
    rf"Task|Context)\b"
)
_INLINE = re.compile(r"Question\s*\d*\s*:")
_STOPPED = re.compile(
    r"(?<!#)###+(?![ \t]*(?:The )?(?:Final|FINAL|Answer|ANSWER|Conclusion|Correct|Solution|Response|Decision|Summary|"
    r"[A-Z]\w+ [Aa]nswer))"
)
_VIGNETTE = re.compile(r"\n\s*\n\s*(?:\d+[.)]\s*)?An? \d{1,3}[- ](?:year|month|week|day)s?[- ]old")


def plain(text: str) -> tuple[str, str]:
    """`text` without thoughts, end tokens, markup and look-alikes, and why nothing is left ("" when something is)."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
        text = _JOINED.sub(r"\1 ", _ALONE.sub(lambda match: _ALIKE[match[0][0]], text))
    if "<" in text or "[" in text or "◁" in text or "assistantfinal" in text:
        text, why = _unwrapped(text)
        if why:
            return "", why
    if "~~" in text:
        text = _STRUCK.sub("", text)
    if "*" in text:
        text = text.replace("*", "")
    if "`" in text:
        text = text.replace("`", "")
    if "__" in text:
        text = text.replace("__", "")
    if "\\" in text or "$" in text:
        text = _without_latex(text)
    return text, ""


def unframed(text: str) -> str:
    """`text` without what assistants say around their answer: "Sure!", "I hope this helps", the advice to ask a doctor.

    Nothing is taken that states an answer, or where nothing else would be left.
    """
    while text[:60].lstrip()[:1] in _OPENS and (lead := _POLITE.match(text) or _LEAD.match(text)):
        if not lead.end() or not text[lead.end() :].strip():
            break
        text = text[lead.end() :]
    text = text.rstrip(" \n#*_=-")
    if text.endswith((")", "]")) and (sure := _SURE.search(text, max(0, len(text) - 60))):
        text = text[: sure.start()] or text
    end = text[-_END:].lower()
    polite = "hope th" in end or "let me" in end or "feel free" in end or "question" in end or "anything else" in end
    if not (polite or "consult" in end or "disclaimer" in end or "advice" in end):
        return text
    for _ in range(3):
        at = max(0, len(text) - _FRAME)
        last = _FAREWELL.search(text, at)
        if not last or not text[: last.start()].strip() or _STATES.search(last[0]):
            break
        text = text[: last.start() + 1]
    return text


_SURE = re.compile(r"\s*[(\[]\s*(?:confidence|certainty)\b[^()\[\]\n]*[)\]]$", re.IGNORECASE)
_FRAME, _END = 500, 200  # characters that a farewell may have, and in which its words are
_OPENS = frozenset("SsCcOoAaGgHhTtIiBbRr<[")
_POLITE = re.compile(
    r"\s*(?:(?:sure(?: thing)?|certainly|of course|okay|ok|absolutely|(?:great|good) question|hello|hi|thank(?:s| you)"
    r"[^\n.!?]{0,60}|here(?:'s| is| are)[^\n.!?:]{0,60}(?=:)|"
    r"(?:i'd be |i am |i'm )?(?:happy|glad) to help[^\n.!?]{0,60})"
    r"(?:, here(?:'s| is)[^\n.!?:]{0,60})?"
    r"[!.:]\s+)+",
    re.IGNORECASE,
)
_ADVISES = r"(?:advice|consult|professional|physician|doctor|educational|informational)"
_FAREWELL = re.compile(
    r"(?:(?<=\S)\n|(?<=\n)\n|(?<=[.!?:)\]\w]) )[ \t>*_#-]*(?:(?:i )?hope (?:this|that) helps|"
    r"(?:please )?(?:let me know|feel free)|"
    r"if you (?:have|need|would like)\b[^\n.]{0,60}(?:question|help|clarif|explanation)|is there anything else|"
    rf"(?:disclaimer|please note|note that|note:|remember|important)\b[^\n]{{0,300}}?{_ADVISES}|"
    r"(?:please |you should )(?:always )?consult (?:a|your|with)\b|"
    rf"this (?:answer|information|response)\b[^\n.]{{0,100}}{_ADVISES})[^\n]{{0,400}}\s*$",
    re.IGNORECASE,
)
_STATES = re.compile(r"\b(?:answer (?:is|would)|correct|option)\b|\([A-Ja-j]\)", re.IGNORECASE)


def _unwrapped(text: str) -> tuple[str, str]:
    low = text.lower()
    at, mark = max((low.rfind(mark), mark) for mark in _CLOSE)
    if at >= 0:
        text = text[at + len(mark) :]
        if not text.strip():
            return "", "nothing after the thought"
    elif any(mark in low for mark in _OPEN):
        return "", "cut short within the thought"
    if prompt := _PROMPT.match(text):
        text = text[prompt.end() :]
    while lead := _LEAD.match(text):
        text = text[lead.end() :]
    stop = _STOP.search(text)
    if stop and text[: stop.start()].strip():
        text = text[: stop.start()]
    text = _TAGGED.sub("\nFinal answer: ", text)
    text = _LETTER_TAG.sub(lambda match: match[0] if f"</{match[1]}>" in text else match[1], text)
    return _TAG.sub(
        lambda match: (
            "\n" if match[0].lower() in ("<br>", "<br/>", "</p>", "</answer>", "[/answer]", "</letter>") else ""
        ),
        text,
    ), ""


def _without_latex(text: str) -> str:
    for _ in range(3):  # they nest: \boxed{\text{\textbf{C}}}
        fewer = _LATEX_TEXT.sub(r"\1", text)
        if fewer == text:
            break
        text = fewer
    text = _BOXED.sub(_boxed, text)
    return _LATEX_REST.sub("", text).replace("\\n", "\n").replace('\\"', '"')


def _boxed(match: re.Match[str]) -> str:
    """What is in the box, with words that say what it is unless these stand before it."""
    before = match.string[max(0, match.start() - 12) : match.start()].rstrip(" $([{\\\n")
    return f" {match[1] or match[2]}" if before.endswith((" is", ":")) else f" Final answer: {match[1] or match[2]}\n"


def breaks(text: str) -> list[tuple[int, str]]:
    """Where something else may begin, in order: (position, kind).

    `question` is a new question, `part` another part of a prompt, `stop` the mark that ends an answer, `vignette` a
    paragraph that begins as exam questions do.
    """
    found = []
    if "\n" in text:
        found = [(match.start(), "question" if match["asks"] else "part") for match in _LINE.finditer(text)]
    if _BEGIN.match(text):
        found.append((0, "question"))
    if "#" in text:
        found += [(match.start(), "question" if match["asks"] else "part") for match in _HEADING.finditer(text)]
    if "Question" in text:
        found += [(m.start(), "question") for m in _INLINE.finditer(text) if text[m.start() - 1 : m.start()].isspace()]
    if "###" in text:
        found += [(match.start(), "stop") for match in _STOPPED.finditer(text)]
    if "\n" in text and ("-old" in text or " old" in text):
        found += [(match.start(), "vignette") for match in _VIGNETTE.finditer(text)]
    return sorted(found)
