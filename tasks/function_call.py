"""Function calls: choose the right one of several functions and generate its arguments as JSON.

Dataset: generated from a seed when the task is loaded (synthetic requests over twelve functions), without a download.
Paper: after the simple and multiple categories of Patil et al., "The Berkeley Function Calling Leaderboard", ICML 2025.
Protocol: our own, without an equivalent in lm-evaluation-harness: `functions` JSON schemas in random order, one
request, one call as `{"name": …, "arguments": {…}}`. `call` requires the right function and arguments, `function` and
`arguments` only one of them. The first JSON call in the text counts; other text is ignored. The groups are the
functions. The train split has other requests.

Example:
    You can call these functions:
    {"name": "set_alarm", "description": "Ring at a time of day.", "parameters": {…}}
    {"name": "set_timer", "description": "Ring after some minutes.", "parameters": {…}}
    Answer with one call, as JSON: {"name": …, "arguments": {…}}

    Request: Wake me at 6:30.
    Call: {"name": "set_alarm", "arguments": {"hour": 6, "minute": 30}}
"""

import json
import random
from collections.abc import Callable
from typing import Any

from harness import Generate, Row, Task, UserError, task

CITIES = [
    "Lima",
    "Oslo",
    "Cairo",
    "Hanoi",
    "Quito",
    "Dakar",
    "Perth",
    "Turin",
    "Osaka",
    "Kyiv",
    "Łódź",
    "Málaga",
    "北京",
]
PEOPLE = ["Ana", "Bruno", "Chen", "Dilan", "Emil", "Farah", "Goran", "Hana", "Idris", "Jonas"]
LANGUAGES = ["French", "German", "Polish", "Swahili", "Korean", "Portuguese"]
PHRASES = [
    "good morning",
    "where is the station?",
    'he said "yes"',
    "see you at 5",
    "thank you, it's fine",
    "no more tea",
]
ROOMS = ["kitchen", "bedroom", "hall", "cellar", "living room"]
CURRENCIES = ["EUR", "USD", "JPY", "CHF", "PLN", "BRL"]
SONGS = ["Blue Door", "Rain, Again", "Nine Lives", "The Long Way Home"]

Draw = Callable[[random.Random], Any]


def _one(values: list[str]) -> Draw:
    return lambda rng: rng.choice(values)


def _number(low: int, high: int, step: int = 1) -> Draw:
    return lambda rng: rng.randrange(low, high, step)


def _date(rng: random.Random) -> str:
    return f"2027-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


FUNCTIONS: dict[str, tuple[str, dict[str, tuple[str, Draw]], list[str]]] = {
    "set_alarm": ("Ring at a time of day.", {"hour": ("integer", _number(1, 24)), "minute": ("integer", _number(10, 60, 5))},
                  ["Wake me at {hour}:{minute}.", "I need an alarm for {hour}:{minute}."]),
    "set_timer": ("Ring after some minutes.", {"minutes": ("integer", _number(2, 90))},
                  ["Tell me when {minutes} minutes are over.", "Start a {minutes} minute timer."]),
    "get_weather": ("Weather of a city on a day.", {"city": ("string", _one(CITIES)), "date": ("string", _date)},
                    ["What will the weather be like in {city} on {date}?", "Do I need an umbrella on {date} in {city}?"]),
    "convert_currency": ("Convert an amount of money.", {"amount": ("number", _number(5, 500)),
                         "source": ("string", _one(CURRENCIES[:3])), "target": ("string", _one(CURRENCIES[3:]))},
                         ["How much are {amount} {source} in {target}?", "I have {amount} {source} and want {target}."]),
    "find_flights": ("Flights between two cities.", {"origin": ("string", _one(CITIES[:6])),
                     "destination": ("string", _one(CITIES[6:])), "date": ("string", _date)},
                     ["Which flights go from {origin} to {destination} on {date}?", "On {date} I fly to {destination} from {origin}."]),
    "find_trains": ("Trains between two cities.", {"origin": ("string", _one(CITIES[:6])),
                    "destination": ("string", _one(CITIES[6:])), "date": ("string", _date)},
                    ["Which trains go from {origin} to {destination} on {date}?", "By rail from {origin} to {destination}, on {date}."]),
    "send_message": ("Send a text to a person.", {"to": ("string", _one(PEOPLE)), "text": ("string", _one(PHRASES))},
                     ["Write to {to}: {text}", "Text {to} this: {text}"]),
    "call_person": ("Telephone a person.", {"name": ("string", _one(PEOPLE))}, ["Ring {name} up.", "I want to talk to {name} now."]),
    "translate": ("Translate a text.", {"text": ("string", _one(PHRASES)), "language": ("string", _one(LANGUAGES))},
                  ["Put this into {language}: {text}", "How do they say this in {language}? {text}"]),
    "set_light": ("Brightness of the light in a room.", {"room": ("string", _one(ROOMS)), "percent": ("integer", _number(0, 101, 5))},
                  ["Dim the {room} to {percent} per cent.", "Light in the {room} at {percent} %, please."]),
    "play_song": ("Play a song.", {"title": ("string", _one(SONGS)), "artist": ("string", _one(PEOPLE))},
                  ['Play "{title}" by {artist}.', "I would like to hear {artist} with {title}."]),
    "book_table": ("Reserve a table in a restaurant.", {"people": ("integer", _number(2, 12)), "date": ("string", _date)},
                   ["A table for {people} on {date}.", "We are {people} and want to eat out on {date}."]),
}  # fmt: skip
"""Each function's description, its arguments with JSON types and values, and wordings of requests."""


def _schema(name: str) -> str:
    description, arguments, _ = FUNCTIONS[name]
    properties = {argument: {"type": type} for argument, (type, _) in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return json.dumps({"name": name, "description": description, "parameters": parameters})


def _rows(seed: str, samples: int, functions: int) -> list[Row]:
    rng = random.Random(seed)
    rows: dict[str, Row] = {}
    while len(rows) < samples:
        shown = rng.sample(sorted(FUNCTIONS), functions)
        name = rng.choice(shown)
        _, arguments, wordings = FUNCTIONS[name]
        values = {argument: draw(rng) for argument, (_, draw) in arguments.items()}
        request = rng.choice(wordings).format(**values)
        call = json.dumps({"name": name, "arguments": values}, ensure_ascii=False)
        schemas = "\n".join(map(_schema, shown))
        rows.setdefault(schemas + request, {"schemas": schemas, "request": request, "call": call, "function": name})
    return list(rows.values())


@task
def function_call(*, functions: int = 4, samples: int = 240, seed: int = 0) -> Task:
    """Choosing the right function and generating its arguments as JSON.

    Args:
        functions: Number of schemas in a prompt.
        samples: Number of requests; the train split has up to twice as many.
        seed: Seed of the requests.
    """
    if not 1 <= functions <= len(FUNCTIONS) or not 1 <= samples <= 5000:
        raise UserError(
            f"function_call: functions={functions}, samples={samples}",
            f"`functions` is 1 to {len(FUNCTIONS)}, `samples` 1 to 5000",
        )
    asked = _rows(f"test {seed}", samples, functions)
    seen = {row["request"] for row in asked}
    train = [row for row in _rows(f"train {seed}", 2 * samples, functions) if row["request"] not in seen]
    return Task(
        data=asked,
        train=train,
        shots_from=train,
        sample=lambda row: Generate(
            f"You can call these functions:\n{row['schemas']}\nAnswer with one call, as JSON: "
            f'{{"name": …, "arguments": {{…}}}}\n\nRequest: {row["request"]}\nCall:',
            row["call"],
            stop=("\n",),
            max_tokens=96,
        ),
        group="function",
        metrics=["call", "function", "arguments"],
    )
