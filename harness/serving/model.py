"""A served model as a run sees it: its address, what the server says of it, and the tokenizer that makes its token ids."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data.model_files import TOKENIZER_FILES, Snapshot, find_files
from harness.errors import UserError, did_you_mean, printable
from harness.jobs import SERVED_PREFIX, Served
from harness.prompts.chat import ChatTemplate
from harness.serving.address import parse_address
from harness.serving.client import Client
from harness.serving.faults import ServerFault
from harness.storage import key

NO_FILES = Path(os.devnull)
"""The folder of a served model without a tokenizer: a path that holds no files."""
_OF_A_MODEL = ("owned_by", "root", "parent", "max_model_len", "meta")
"""Fields of `/models` that describe the model; others, such as the time, change with every answer."""
_OF_THE_SERVER = {"/version": ("version",), "/props": ("build_info", "model_path", "model_alias")}
"""Fields of pages of vLLM and of llama.cpp that say what is running."""
_START_PATIENCE = 5.0
"""Seconds for which a server is asked again at the start: one that is down is said at once."""
_MOST = 2000
"""Characters of a value that are kept of what a server says."""


@dataclass(frozen=True)
class ServedModel(Snapshot):
    """A model on a server; its folder holds the tokenizer, and no weights."""

    served: Served = field(kw_only=True)
    says: Mapping[str, Any] = field(kw_only=True, hash=False)
    """Statements of the server about the model and itself."""
    tokenizer: Snapshot | None = field(kw_only=True)
    """None: prompts are sent as text, or as messages."""

    @cached_property
    def digest(self) -> str:
        """Digest of the address, of what the server says, and of the tokenizer; the weights themselves are not known."""
        return key(served=vars(self.served), says=self.says, tokenizer=self.tokenizer and self.tokenizer.digest)

    @property
    def artifact_digest(self) -> str:
        """The same."""
        return self.digest

    @property
    def config(self) -> dict[str, Any]:
        """Nothing: a configuration beside the tokenizer need not be that of the served model."""
        return {}

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together, as vLLM and llama.cpp say them."""
        model = self.says.get("model", {})
        meta = model.get("meta")
        said = model.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, Mapping) else None)
        return said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else None

    @property
    def quantization(self) -> str | None:
        """Not known."""
        return None


def find_served(text: str, *, shared: str | None = None, tokenizer: Snapshot | None = None) -> ServedModel:
    """Asks a server what it says of a model.

    Args:
        text: The address as typed.
        shared: URL of the server of `--model`.
        tokenizer: Folder of the model's tokenizer.

    Raises:
        ServerFault: The server does not answer, or has no such model.
        UserError: The address is malformed.
    """
    served = parse_address(text, shared)
    client = Client.from_environment(served, patience=_START_PATIENCE)
    folder = tokenizer.folder if tokenizer else NO_FILES
    name = f"{SERVED_PREFIX}{served.url}#{served.name}"
    return ServedModel(name, folder, served=served, says=_says(client), tokenizer=tokenizer)


def find_tokenizer(name: str, *, trust_remote_code: bool = False) -> Snapshot:
    """Finds the tokenizer of a served model: a folder or a Hub id, of which no weights are fetched.

    Raises:
        UserError: There is none.
    """
    found = find_files(name, "tokenizer", weights=False, trust_remote_code=trust_remote_code)
    if found.folder.is_dir() and not any((found.folder / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(
            f"`--tokenizer {name}`: there is no tokenizer ({', '.join(TOKENIZER_FILES[:3])} …)",
            hint="give the folder or Hub id of the served model, or save its tokenizer with `tokenizer.save_pretrained`",
        )
    return found


def _says(client: Client) -> dict[str, Any]:
    """The statements of a server about a model and itself.

    Raises:
        ServerFault: It does not answer, or lists models and not this one.
    """
    says: dict[str, Any] = {}
    try:
        listed = client.ask("/models").get("data")
    except ServerFault as fault:
        if fault.kind not in ("path", "request", "model"):  # some servers have no list, or fail to make it
            raise
        listed = None
    models = (
        {str(each.get("id")): each for each in listed if isinstance(each, dict)} if isinstance(listed, list) else {}
    )
    name = client.served.name
    if models and name not in models:
        raise ServerFault(
            "model", f"`{client.served.url}` has no model `{name}`", did_you_mean(name, map(printable, models))
        )
    if name in models:
        parent = models.get(str(models[name].get("parent")), {})  # a LoRA of vLLM names no context of its own
        models[name] = {"max_model_len": parent.get("max_model_len")} | {
            field: value for field, value in models[name].items() if value is not None
        }
        says["model"] = {
            field: _short(models[name][field]) for field in _OF_A_MODEL if models[name].get(field) is not None
        }
    for path, fields in _OF_THE_SERVER.items():
        try:
            page = client.ask(path, beside=True)
        except ServerFault:
            continue
        found = {field: _short(page[field]) for field in fields if page.get(field) is not None}
        says |= {"server": says.get("server", {}) | found} if found else {}
    return says


def _short(value: Any) -> Any:
    return value if len(text := json.dumps(value)) <= _MOST else text[:_MOST]


@dataclass(frozen=True)
class ServersTemplate(ChatTemplate):
    """Messages for a server that applies its own chat template: a prompt is the messages as JSON."""

    text: str = "the server's own"
    special_tokens: dict[str, str] = field(default_factory=dict)

    @property
    def has_system_turn(self) -> bool:
        """Yes, as far as is known."""
        return True

    @property
    def for_choices(self) -> ChatTemplate:
        """Choices cannot be scored after messages.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "the likelihood of a choice after messages cannot be asked for: the server applies its own chat template",
            hint="name the model's tokenizer with `--tokenizer`, or leave out tasks of choices or the chat template",
        )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The messages as JSON.

        Raises:
            UserError: The last message begins the answer, which `/chat/completions` does not continue.
        """
        if messages and messages[-1].get("role") == "assistant":
            raise UserError(
                "the prompt begins the answer, and a server that applies its own chat template does not continue it",
                hint="name the model's tokenizer with `--tokenizer`, or leave out the chat template",
            )
        return json.dumps([dict(message) for message in messages], ensure_ascii=False)


SERVERS_TEMPLATE = ServersTemplate()
