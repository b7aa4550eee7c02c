"""`quadflow evaluate`."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from ..flow.field import Guidance
from ..sampling.sample import NEED_SIDENET, SAMPLERS
from .arguments import output_file, whole_numbers


def _evaluate(arguments: argparse.Namespace) -> None:
    from ...analysis.images import evaluation as study
    from ...analysis.images.rivals import RIVALS
    from ...extras import progress, require
    from ..backbones.pretrained import load_sidenet
    from ..backbones.registry import load_named

    out = output_file(arguments.out)
    npz = Path(arguments.npz) if arguments.npz else None
    if npz is not None and not npz.is_dir():
        raise ValueError(f"--npz {npz} is no folder")
    if arguments.pictures:
        require("matplotlib", "analysis")  # before the work, not after it
        picture = Path(arguments.pictures)
        if picture.is_dir() or not picture.parent.is_dir():
            raise ValueError(f"--pictures {picture}: must be a file in a folder that exists")
    backbone = load_named(arguments.backbone, image_size=arguments.image_size)
    path = arguments.sidenet or backbone.sidenet
    sidenet = load_sidenet(path) if path else None
    methods = tuple(arguments.methods.split(",")) if arguments.methods else study.METHODS
    known = (*SAMPLERS, *RIVALS)
    unknown = [m for m in methods if m not in known]
    if unknown:
        raise ValueError(f"--methods has {unknown[0]!r}: one of {', '.join(known)}")
    needing = [m for m in methods if m in NEED_SIDENET]
    if sidenet is None and needing:
        raise ValueError(f"--methods has {needing[0]}, which needs --sidenet")
    if sidenet is None and arguments.budget:
        raise ValueError("--budget is of BA-solver, which needs --sidenet")
    scale = arguments.guidance
    if scale != 1 and not backbone.num_classes:
        raise ValueError(f"--guidance {scale}: {backbone.name} has no classes to be guided by")
    features = None
    features_name = arguments.features
    if arguments.features == "efficientnet":
        from ...analysis.images.features import efficientnet_features

        features = efficientnet_features(arguments.feature_size)
        features_name = f"EfficientNet-Lite0 at {arguments.feature_size} pixels"
    elif arguments.features != "none":
        features = _own_features(arguments.features)
    shifts = (1.0,) if arguments.uniform_only else study.SHIFTS
    subject = study.Subject(backbone, sidenet)
    pictures: dict[str, Any] = {}
    budgets = [n for n in arguments.nfe if n <= 10] if arguments.budget else []
    length = study.evaluation_length(
        methods, arguments.nfe, arguments.euler, shifts, features=features is not None
    )
    with progress(length + len(budgets), "evaluate") as bar:
        result = study.evaluate(
            subject,
            images=arguments.images,
            seed=arguments.seed,
            guidance=Guidance(scale, backbone.num_classes or None),
            methods=methods,
            nfes=arguments.nfe,
            euler_nfes=arguments.euler,
            shifts=shifts,
            reference_steps=arguments.reference_steps,
            features=features,
            features_name=features_name,
            npz=npz,
            out=out,
            progress=lambda: bar.update(1),
            pictures=pictures,
        )
        if arguments.budget:
            study.add_budget(subject, result, budgets, lambda: bar.update(1))
            result.save(out)
    if arguments.pictures:
        study.draw(Path(arguments.pictures), result, pictures)
    text = result.to_dict()
    for tuned in (False, *((True,) if len(shifts) > 1 else ())):
        print("\n" + study.table(text, tuned=tuned))
        if features is not None:
            print("\n" + study.table(text, tuned=tuned, key="frechet"))
    print(f"\n-> {out}")


def _own_features(name: str) -> Any:
    """The callable MODULE:NAME.

    Raises:
        ValueError: not of that form, no such module, or nothing callable in it of that name.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"--features {name}: must be none, efficientnet or MODULE:NAME")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--features {name}: {error}") from error
    if not callable(found):
        raise ValueError(f"--features {name} is no callable but a {type(found).__name__}")
    return found


def _budgets(text: str) -> tuple[int, ...]:
    return whole_numbers(text, "3,5,7") if text else ()


def add_evaluate(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    text = "every sampler at every budget, against the converged solve from the same noises"
    evaluate = commands.add_parser("evaluate", help=text, description=text)
    add = evaluate.add_argument
    add("--backbone", help="fashion-unet (default), mnist-sit, galaxygrad:hsc-32, or a weight file")
    add("--sidenet", help="SideNet weights; default: the backbone's shipped one")
    add("--image-size", type=int, help="pixels a side, for a weight file that does not say")
    add("--methods", help="such as euler,pec2,bianchor; default: all")
    add("--nfe", type=_budgets, default=(3, 5, 7, 10, 20), help="budgets (3,5,7,10,20)")
    add("--euler", type=_budgets, default=(50, 100, 200), help="long Euler runs (50,100,200)")
    add("--guidance", type=float, default=1.0, help="scale; 1 is none")
    add("--images", type=int, default=48, help="(%(default)s)")
    add("--seed", type=int, default=0)
    add("--uniform-only", action="store_true", help="do not look for every method's best shift")
    add("--reference-steps", type=int, default=24, help="rk4 steps, and twice as many (24)")
    add("--features", default="none",
        help="for Fréchet distance, precision and recall: none, efficientnet, or MODULE:NAME, a "
        "callable images (B, C, H, W) in [-1, 1] -> (B, D)")  # fmt: skip
    add("--feature-size", type=int, default=112, help="pixels the feature network sees (112)")
    add(
        "--budget",
        action="store_true",
        help="error budget and ablation of BA-solver, at NFE up to 10",
    )
    add("--npz", help="folder for every row's images, as the ADM evaluation suite reads them")
    add("--pictures", help="PNG of samples by method and NFE")
    add("--out", default="evaluation.json", help="(%(default)s)")
    evaluate.set_defaults(run=_evaluate)
