"""Model configurations as published (config.json): parameters, memory of weights, KV cache of a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.readers.document import Tree, read_tree
from rodiu_jax.catalog.readers.imported import Imported, Value, find_likes, fixed, settle_name
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.number_text import significant

BYTES = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "float8_e4m3fn": 1.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
    "fp4": 0.5,
}
"""Bytes of a number by type. Scales of quantised weights (a few percent) are not counted."""


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
      parameters: all of them.
      active: those that a token passes: the experts it is sent to, and everything that is no expert.
      cached: numbers that a token leaves in the KV cache, over all layers.
    """

    parameters: int
    active: int
    cached: int
    attention: str


def import_model(
    file: str | Path,
    *,
    name: str,
    dtype: str | None = None,
    kv_dtype: str | None = None,
    base: str | Path = "seed",
    like: str | Mapping[str, str] | None = None,
    write: bool = True,
) -> Imported:
    """Read ``weight_memory`` and ``kv_per_token`` of a model from its Hugging Face config.json.

    Weights: the parameters of embeddings, attention (grouped-query or latent), feed-forward layers or experts, norms
    and head, times the bytes of ``dtype``. KV cache of a token: ``2 layers kv_heads head_dim`` numbers, with latent
    attention ``layers (kv_lora_rank + qk_rope_head_dim)``, times the bytes of ``kv_dtype``. GB are 10^9 bytes.

    Args:
      file: config.json of a llama, mistral, qwen2, qwen3, qwen2_moe, qwen3_moe, mixtral, deepseek_v2 or deepseek_v3.
      name: the model of ``base`` that it is, or a new one.
      dtype: of the weights as they are served; by default as the file says.
      kv_dtype: of the KV cache; by default 2 bytes where the weights have fewer, else as the weights.
      base: catalogue to extend, by name or path.
      like: model of ``base`` that a new one is like (``model=NAME``); by default the one whose weights are nearest, and
        the catalogue says that this is assumed.
      write: False to read alone: the names need not be in ``base``, and nothing can be saved.

    Raises:
      InputError: an architecture that is not known, a value that is missing or impossible, a type that nobody says.

    Source: the architectures' published implementations; Ainslie et al., GQA, 2023; DeepSeek-V2, 2024, for latent
    attention.
    """
    catalog = load_catalog(base)
    tree, origin = read_tree(file)
    size = _measure(tree)
    served = _find_dtype(tree, dtype, "dtype")
    cached = (
        _find_dtype(tree, kv_dtype, "kv_dtype") if kv_dtype else served if BYTES[served] >= 2 else "bfloat16"
    )
    weights = size.parameters * BYTES[served] / 1e9
    kv = size.cached * BYTES[cached] / 1e9
    likes = find_likes(like)
    default = likes.get("model") or _find_nearest(catalog, weights)
    new = settle_name(catalog, "model", name, default, "name") if write else None
    kind = tree.need("model_type").text()
    experts = f", {size.active:,} of them active for a token" if size.active < size.parameters else ""
    notes = {
        "weight_memory": f"{size.parameters:,} parameters of {kind}{experts}, times {BYTES[served]:g} bytes ({served})",
        "kv_per_token": f"{size.cached:,} numbers a token ({size.attention}), times {BYTES[cached]:g} bytes ({cached})",
    }
    window = tree.get("sliding_window")
    if window is not None and (use := tree.get("use_sliding_window")) is not None and use.flag():
        notes["kv_per_token"] += (
            f"; beyond {window.whole():,} tokens some layers keep no more, which is not counted"
        )
    values = tuple(
        Value(quantity, (name,), fixed(number), str(origin), notes[quantity], "predicted")
        for quantity, number in (("weight_memory", weights), ("kv_per_token", kv))
    )
    record = {
        "name": name,
        "parameters": size.parameters,
        "active_parameters": size.active,
        "weight_memory": weights,
        "kv_per_token": kv,
        "dtype": served,
        "kv_dtype": cached,
        "units": "GB, GB/token",
    }
    lines = [
        f"{name} from {origin.short}: {notes['weight_memory']}: {significant(weights, 4)} GB. KV cache: "
        f"{notes['kv_per_token']}: {significant(kv * 1e9, 7)} bytes/token, {significant(kv, 4)} GB/token."
    ]
    for v in values if name in catalog.sets["model"] else ():
        entry = catalog.find_entry(v.quantity, v.names)
        if entry is not None:
            lines.append(f"{catalog.name} has {v.quantity} {entry.distribution} for {name}.")
    if new:
        lines.append(f"{catalog.name} has no model {name}: all else is assumed as {new[1]}'s.")
    return Imported(
        kind="model",
        name=f"{catalog.name}, {name} from {Path(file).stem}",
        description=f"{catalog.name} with the memory of {name} as its configuration gives it",
        base=base,
        values=values,
        record=record,
        summary="\n".join(lines),
        likes={"model": {new[0]: new[1]}} if new else {},
    )


def _find_nearest(catalog: Catalog, weights: float) -> str:
    low, high = catalog.ranges["weight_memory"]
    far = np.abs(np.log(np.maximum((low + high) / 2, 1e-9)) - np.log(max(weights, 1e-9)))
    return catalog.sets["model"][int(np.argmin(far))]


def _find_dtype(tree: Tree, given: str | None, option: str) -> str:
    known = ", ".join(BYTES)
    if given is not None:
        if given not in BYTES:
            raise InputError(option, "", f"one of {known}{nearest(given, BYTES)}", given)
        return given
    quantised = tree.get("quantization_config")
    if quantised is not None:
        method, bits = quantised.get("quant_method"), quantised.get("bits")
        if bits is not None and bits.value in (4, 8):
            return f"int{bits.value}"
        if method is not None and method.value == "fp8":
            return "fp8"
        raise InputError(tree.source, "quantization_config", f"--dtype with one of {known}", quantised.value)
    for key in ("torch_dtype", "dtype"):
        if (said := tree.get(key)) is not None:
            if not isinstance(said.value, str) or said.value not in BYTES:
                raise InputError(tree.source, key, f"one of {known}; --dtype says another", said.value)
            return said.text()
    raise InputError(tree.source, "torch_dtype", f"--dtype with one of {known}: the file does not say it")


# ---- architectures ----


def _measure(tree: Tree) -> Size:
    kind = tree.need("model_type").text()
    if kind not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise InputError(tree.source, "model_type", f"one of {known}{nearest(kind, _ARCHITECTURES)}", kind)
    layers, hidden = _whole(tree, "num_hidden_layers", 10_000), _whole(tree, "hidden_size")
    table = _whole(tree, "vocab_size") * hidden
    tied = tree.get("tie_word_embeddings")
    head = 0 if tied is not None and tied.flag() else table
    attention, cached, words = _measure_attention(tree, kind, hidden)
    total = active = table + head + hidden + layers * (attention + 2 * hidden)
    for layer in range(layers):
        whole, used = _ARCHITECTURES[kind](tree, hidden, layer)
        total, active = total + whole, active + used
    return Size(total, active, layers * cached, words)


def _measure_attention(tree: Tree, kind: str, hidden: int) -> tuple[int, int, str]:
    """Parameters of attention in a layer, numbers that a token leaves in its cache, and the kind in words."""
    heads = _whole(tree, "num_attention_heads", 100_000)
    if tree.get("kv_lora_rank") is not None:
        rank, rope = _whole(tree, "kv_lora_rank"), _whole(tree, "qk_rope_head_dim")
        plain, value = _whole(tree, "qk_nope_head_dim"), _whole(tree, "v_head_dim")
        query = heads * (plain + rope)
        if tree.get("q_lora_rank") is not None:
            low = _whole(tree, "q_lora_rank")
            queries = hidden * low + low + low * query
        else:
            queries = hidden * query
        keys = hidden * (rank + rope) + rank + rank * heads * (plain + value)
        return (
            queries + keys + heads * value * hidden,
            rank + rope,
            f"latent attention, {rank} + {rope} a layer",
        )
    grouped = _whole(tree, "num_key_value_heads", 100_000) if tree.get("num_key_value_heads") else heads
    if heads % grouped:
        expected = f"a divisor of the {heads} heads"
        raise InputError(tree.source, "num_key_value_heads", expected, grouped)
    if tree.get("head_dim") is not None:
        size = _whole(tree, "head_dim", 100_000)
    elif hidden % heads:
        raise InputError(tree.source, "head_dim", f"this key, as {hidden} is no multiple of {heads} heads")
    else:
        size = hidden // heads
    parameters = 2 * hidden * heads * size + 2 * hidden * grouped * size
    biased = tree.get("attention_bias")
    if kind in ("qwen2", "qwen2_moe"):
        parameters += (heads + 2 * grouped) * size
    elif biased is not None and biased.flag():
        parameters += (heads + 2 * grouped) * size + hidden
    if kind in ("qwen3", "qwen3_moe"):
        parameters += 2 * size  # norms of queries and keys
    return parameters, 2 * grouped * size, f"2 x {grouped} key-value heads x {size} a layer"


def _dense(tree: Tree, hidden: int, layer: int) -> tuple[int, int]:
    size = 3 * hidden * _whole(tree, "intermediate_size")
    return size, size


def _mixtral(tree: Tree, hidden: int, layer: int) -> tuple[int, int]:
    return _experts(tree, hidden, "num_local_experts", "intermediate_size")


def _qwen_moe(tree: Tree, hidden: int, layer: int) -> tuple[int, int]:
    step = _whole(tree, "decoder_sparse_step") if tree.get("decoder_sparse_step") else 1
    plain = [n.whole() for n in only.list()] if (only := tree.get("mlp_only_layers")) is not None else []
    if layer in plain or (layer + 1) % step:
        return _dense(tree, hidden, layer)
    total, active = _experts(tree, hidden, "num_experts", "moe_intermediate_size")
    if tree.get("shared_expert_intermediate_size") is not None:
        shared = 3 * hidden * _whole(tree, "shared_expert_intermediate_size") + hidden
        total, active = total + shared, active + shared
    return total, active


def _deepseek(tree: Tree, hidden: int, layer: int) -> tuple[int, int]:
    first = tree.get("first_k_dense_replace")
    every = _whole(tree, "moe_layer_freq") if tree.get("moe_layer_freq") else 1
    if layer < (first.whole() if first else 0) or layer % every:
        return _dense(tree, hidden, layer)
    total, active = _experts(tree, hidden, "n_routed_experts", "moe_intermediate_size")
    count = tree.get("n_shared_experts")
    shared = 3 * hidden * _whole(tree, "moe_intermediate_size") * (count.whole(most=10_000) if count else 0)
    if tree.need("model_type").value == "deepseek_v3":  # a bias of the router for each expert
        experts = _whole(tree, "n_routed_experts", 100_000)
        total, active = total + experts, active + experts
    return total + shared, active + shared


def _experts(tree: Tree, hidden: int, count: str, width: str) -> tuple[int, int]:
    experts, chosen = _whole(tree, count, 100_000), _whole(tree, "num_experts_per_tok", 100_000)
    if chosen > experts:
        raise InputError(tree.source, "num_experts_per_tok", f"at most the {experts} experts", chosen)
    one = 3 * hidden * _whole(tree, width)
    return experts * (one + hidden), chosen * one + experts * hidden


def _whole(tree: Tree, key: str, most: int = 10**8) -> int:
    return tree.need(key).whole(low=1, most=most)


_ARCHITECTURES: dict[str, Callable[[Tree, int, int], tuple[int, int]]] = {
    "llama": _dense,
    "mistral": _dense,
    "qwen2": _dense,
    "qwen3": _dense,
    "qwen2_moe": _qwen_moe,
    "qwen3_moe": _qwen_moe,
    "mixtral": _mixtral,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
}
"""Parameters of the feed-forward part of a layer, all and active, by the architecture's name."""
