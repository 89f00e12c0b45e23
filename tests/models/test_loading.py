"""Models that are not what they seem: weights that a checkpoint lacks, heads of another kind, attention without a mask."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import architectures
import pytest
import stages
import tiny_models as tiny
import torch
import transformers
from safetensors.torch import load_file, save_file

from harness.config.parse import configure
from harness.data.architecture import refuse_other_architectures
from harness.data.model_files import find_model
from harness.errors import UserError
from harness.jobs import Noted, ScoreJob, ScoreVariant
from harness.models.causality import refuse_if_not_causal
from harness.models.load import Resident, load_base, method_function
from harness.prepare.prepare import prepare
from harness.worker import scoring

SIZES = {
    "vocab_size": 344,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
SEQ2SEQ = {"vocab_size": 344, "d_model": 32}


def edit_config(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def edit_weights(folder: Path, change: Any) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def save(folder: Path, name: str, config: Any) -> Path:
    torch.manual_seed(0)
    getattr(transformers, name)(config).save_pretrained(folder)
    tiny.tiny_tokenizer().save_pretrained(folder)
    return folder


# The loading report


def test_a_gpu_is_made_the_current_one_and_does_without_cudnns_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(device: str) -> None:
        raise RuntimeError(f"current: {device}")

    monkeypatch.setattr(torch.cuda, "set_device", chosen)
    torch.backends.cuda.enable_cudnn_sdp(True)
    base = replace(tiny.tiny_base(tiny.save_tiny(tmp_path)), device="cuda:1")
    with pytest.raises(RuntimeError, match="current: cuda:1"):
        load_base(base)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_missing_weights_are_refused_with_their_names(tmp_path: Path) -> None:
    tiny.save_tiny(tmp_path)
    edit_weights(tmp_path, lambda weights: {k: v for k, v in weights.items() if "lm_head" not in k and "norm" not in k})
    with pytest.raises(
        UserError, match=r"lacks weights of `LlamaForCausalLM`: `lm_head.weight`, `model.layers.0"
    ) as caught:
        load_base(tiny.tiny_base(tmp_path))
    assert "and 3 more; they would be drawn at random" in caught.value.message
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path: Path, bits: Any) -> None:
    tiny.save_tiny(tmp_path)
    edit_config(tmp_path, intermediate_size=96)
    with pytest.raises(
        UserError, match=r"`model.layers.0.mlp.down_proj.weight` has the shape \[64, 128\] in the file"
    ) as e:
        load_base(tiny.tiny_base(tmp_path, bits=bits))
    assert "[64, 96] in `LlamaForCausalLM`, and 5 more" in e.value.message


@pytest.mark.parametrize(
    ("shape", "bits"),
    [
        *((shape, None) for shape in sorted(architectures.SHAPES)),
        *((shape, 4) for shape in ("llama", "gpt2", "qwen3")),
    ],
)
def test_checkpoints_of_causal_models_lack_nothing_and_are_causal(tmp_path: Path, shape: str, bits: Any) -> None:
    architectures.random_model(shape).save_pretrained(tmp_path)
    model = load_base(tiny.tiny_base(tmp_path, bits=bits))
    refuse_if_not_causal(model)
    assert model.loading_notes == []


def test_weights_without_a_place_are_noted(tmp_path: Path) -> None:
    base = tiny.tiny_base(tiny.save_tiny(tmp_path))
    edit_weights(tmp_path, lambda weights: {**weights, "model.layers.0.self_attn.q_proj.bias": torch.ones(64)})
    variants = [ScoreVariant("base", tiny.bare(base), (tiny.task(tiny.choose("hello", [" two", " 42"])),))]
    events: list[Any] = []
    scoring.score(ScoreJob(variants, "auto", "fp32", 500, None, 0), events.append)
    assert [event.note for event in events if isinstance(event, Noted)] == [
        "the checkpoint has weights that `LlamaForCausalLM` does not use: `model.layers.0.self_attn.q_proj.bias`"
    ]
    trained = stages.train(stages.job_for(tmp_path, tmp_path / "out", base=base, steps=1))
    assert [note for note in trained.notes if "does not use" in note]


def test_a_head_of_its_own_under_a_tied_configuration_is_used_and_noted(tmp_path: Path) -> None:
    folder = tiny.save_tiny(tmp_path)
    base = tiny.tiny_base(folder)
    before = load_base(base)(torch.arange(20)[None]).logits
    edit_config(folder, tie_word_embeddings=True)
    for bits in (None, 4):
        model = load_base(tiny.tiny_base(folder, bits=bits))
        (note,) = model.loading_notes
        assert note.startswith("config.json ties the output head to the embeddings")
    assert torch.equal(load_base(base)(torch.arange(20)[None]).logits, before)
    edit_weights(folder, lambda weights: {k: v for k, v in weights.items() if "lm_head" not in k})
    assert load_base(base).loading_notes == []


# The configuration


@pytest.mark.parametrize(
    ("name", "config", "kind"),
    [
        ("LlamaForSequenceClassification", tiny.tiny_config(), "classifier"),
        ("GPT2ForTokenClassification", tiny.tiny_config("gpt2"), "classifier"),
        ("BertForSequenceClassification", transformers.BertConfig(**SIZES), "classifier"),
        ("BertForMaskedLM", transformers.BertConfig(**SIZES), "encoder"),
        ("BertModel", transformers.BertConfig(**SIZES), "encoder"),
        ("RobertaForMaskedLM", transformers.RobertaConfig(**SIZES), "encoder"),
        ("ModernBertForMaskedLM", transformers.ModernBertConfig(**SIZES, pad_token_id=0), "encoder"),
        ("T5ForConditionalGeneration", transformers.T5Config(**SEQ2SEQ, num_layers=1, d_ff=48), "encoder-decoder"),
        (
            "BartForConditionalGeneration",
            transformers.BartConfig(
                **SEQ2SEQ, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=48, decoder_ffn_dim=48
            ),
            "encoder-decoder",
        ),
    ],
)
def test_other_kinds_of_models_are_refused_before_they_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, config: Any, kind: str
) -> None:
    save(tmp_path, name, config)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", None)
    message = rf"is an? {kind} \(`{name}`\), no causal language model"
    for load in (lambda: find_model(str(tmp_path)), lambda: load_base(tiny.tiny_base(tmp_path))):
        with pytest.raises(UserError, match=message) as caught:
            load()
        assert str(tmp_path) in caught.value.message and "ForCausalLM" in str(caught.value.hint)


def test_a_classifier_given_as_a_variant_is_refused_too(tmp_path: Path) -> None:
    save(tmp_path, "LlamaForSequenceClassification", tiny.tiny_config())
    with pytest.raises(UserError, match="is a classifier"):
        prepare(configure(["base", str(tmp_path)], tasks=["mini_mmlu"], limit=2))


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
        {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"},
        {"architectures": ["GPT2Model"], "model_type": "gpt2"},
        {"architectures": ["BertLMHeadModel"], "model_type": "bert", "is_decoder": True},
        {"architectures": ["BartForCausalLM"], "model_type": "bart", "is_decoder": True},
        {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"},
        {"architectures": ["XLMWithLMHeadModel"], "model_type": "xlm", "causal": True},
        {"model_type": "llama"},
        {},
    ],
)
def test_causal_models_pass(config: dict[str, Any]) -> None:
    refuse_other_architectures("model", config)


# The probe


def test_a_decoder_of_an_encoders_architecture_loads_and_is_causal(tmp_path: Path) -> None:
    save(tmp_path, "BertLMHeadModel", transformers.BertConfig(**SIZES, is_decoder=True))
    refuse_if_not_causal(load_base(tiny.tiny_base(tmp_path)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["Bert", "Roberta", "Electra"])
def test_a_model_whose_logits_depend_on_later_tokens_is_refused(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, name + "Config")(**SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with pytest.raises(
        UserError, match=f"`{type(model).__name__}` is no causal language model: the logits of a token depend"
    ):
        refuse_if_not_causal(model)


def test_a_model_without_a_causal_mask_is_neither_scored_nor_trained(tmp_path: Path) -> None:
    """Its configuration does not tell: this class is a decoder only with `is_decoder`."""
    base = tiny.tiny_base(save(tmp_path, "BertGenerationDecoder", transformers.BertGenerationConfig(**SIZES)))
    variants = [ScoreVariant("base", tiny.bare(base), (tiny.task(tiny.choose("hello", [" two", " 42"])),))]
    with pytest.raises(UserError, match="is no causal language model"):
        scoring.score(ScoreJob(variants, "auto", "fp32", 500, None, 0), lambda event: None)
    with pytest.raises(UserError, match="is no causal language model"):
        stages.train(stages.job_for(tmp_path, tmp_path / "out", base=base, steps=1))


def test_a_context_shorter_than_the_probe_is_probed_in_its_length(tmp_path: Path) -> None:
    refuse_if_not_causal(Resident(tiny.tiny_base(tiny.save_tiny(tmp_path, "gpt2", context=8)), method_function).bare)
