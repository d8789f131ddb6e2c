"""The three keys that compose with any defense: adversarial training, transforms in front, a base to start from.

They stand in a defense's block, or under `training`, where they hold for every defense that does not give its own;
null or the word none switches one off. Blocks without them have none of these keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.build import Extended, Setting, make, normalised, refusals
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from orchestrator.tables import Tables

KEYS = ("adversarial", "input", "base")
_OF_TRAINING = ("adversarial", "base")  # which a model that exists already has none of

Block = dict[str, Any]


@dataclass(frozen=True)
class Base:
    """A reference network: trained once by `defense` (default standard) with the trial's own training, of which the
    keys of `training` replace some; then the start of all trials that name it.
    """


def beside(tables: Tables) -> dict[str, Setting]:
    """The three keys, as every defense's block and that of training may have them."""
    of_network = {"adversarial": _adversarial(tables), "input": _left_out("input", tables.inputs, is_list=True)}
    defense = Extended(tables.defenses, of_network)
    training = Extended(tables.training, of_network, is_partial=True)
    inner = {"defense": _left_out("defense", defense), "training": _left_out("training", training)}
    return {**of_network, "base": _left_out("base", Extended(Base, inner))}


def composed(defense: Mapping[str, Any], training: Mapping[str, Any], seed: int) -> tuple[Block, Block]:
    """The two blocks with what holds for this defense in its own block, and nothing of the three under training.

    A base is complete there: its defense, all its training, the seed it is trained with. Of what stands under training
    a pretrained model has the transforms alone.
    """
    held = _holding(defense, training)
    if "base" in held:
        held["base"] = _complete(held["base"], training, seed)
    return without(defense) | held, without(training)


def without(block: Mapping[str, Any]) -> Block:
    """The block without the three keys."""
    return {key: value for key, value in block.items() if key not in KEYS}


def refused(defense: Mapping[str, Any], training: Mapping[str, Any], tables: Tables) -> Iterator[Problem]:
    """What does not go together in a configuration whose blocks are right one by one."""
    own, _ = composed(defense, training, 0)
    yield from (Problem((), text) for text in _clashes(own, tables))
    if "base" in own:
        base = own["base"]
        yield from (Problem(("base",), text) for text in _clashes(base["defense"], tables))
        if _is_given(base["defense"]):
            text = "pretrained is for models that are measured as they are; a base is trained, by a defense"
            yield Problem(("base", "defense", "name"), text)
        for problem in refusals(tables.training, base["training"]):
            yield Problem(("base", "training", *problem.at), problem.text)


def _clashes(block: Mapping[str, Any], tables: Tables) -> Iterator[str]:
    from defenses.adversarial import refuse_beside

    if _is_given(block) and (idle := [key for key in _OF_TRAINING if key in block]):
        yield f"{' and '.join(idle)} would change nothing: a pretrained model is not trained"
        return
    if "adversarial" in block:
        try:
            refuse_beside(make(tables.defenses, without(block)), block["adversarial"])
        except ValueError as error:
            yield str(error)


def _is_given(defense: Mapping[str, Any]) -> bool:
    return bool(defense.get("name") == "pretrained")


def _holding(defense: Mapping[str, Any], training: Mapping[str, Any]) -> Block:
    """The keys that are given and not switched off; the defense's own go before those of training."""
    keys = [key for key in KEYS if key in defense or not (_is_given(defense) and key in _OF_TRAINING)]
    given = {key: (defense if key in defense else training).get(key) for key in keys}
    return {key: value for key, value in given.items() if value is not None and value != []}  # a base may be {}


def _complete(base: Mapping[str, Any], training: Mapping[str, Any], seed: int) -> Block:
    from defenses import DEFENSES

    defense = base.get("defense") or normalised(DEFENSES, "standard")
    whole = {key: value for key, value in training.items() if key != "base"} | (base.get("training") or {})
    return {"defense": without(defense) | _holding(defense, whole), "training": without(whole), "seed": seed}


def _adversarial(tables: Tables) -> Setting:
    from defenses.adversarial import Adversarial

    share = Setting("share", float, False, 1.0, None)
    eps = Setting("eps", float | tuple[float, float] | None, False, None, None)
    return _left_out("adversarial", Extended(tables.attacks, {"share": share, "eps": eps}, Adversarial))


def _left_out(name: str, kinds: Any, is_list: bool = False) -> Setting:
    return Setting(name, Any, False, None, kinds, is_list, is_left_out=True)
