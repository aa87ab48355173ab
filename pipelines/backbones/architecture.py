"""A network as a line of text: the base that its weights come from, and its stages.

The notation is that of timm's builders, a stage a part, parts joined by hyphens. MobileNetV2 begins
with ``mobilenet_v2-cn_r1_k3_s2_c32-ds_r1_k3_s1_c16-ir_r2_k3_s2_e6_c24`` and ends with
``cn_r1_k1_s1_c1280``. ``cn`` is a convolution, ``ds`` a depthwise separable one, ``ir`` an inverted
residual, and ``er`` one whose first two convolutions are fused into a plain one; r is how many
blocks, k the kernel, s the stride of the first block, e the expansion, c the channels, and se a
squeeze-and-excitation of that share of a block's input channels.

Weights are inherited (`pipelines.backbones.inherit`), so that a stage has at most the base's
blocks, channels and expansion, and its strides.

References:
    timm.models._efficientnet_builder (the notation); Tan et al. 2019, "MnasNet: platform-aware
    neural architecture search for mobile" (the factorised hierarchical space).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from pipelines.errors import ConfigError

KERNELS = (3, 5)
SQUEEZES = (0.0, 0.25)
#: Of channels, as in MobileNets: processors like them.
MULTIPLE = 8

_PART = re.compile(
    r"(?P<operator>cn|ds|ir|er)_r(?P<repeats>\d+)_k(?P<kernel>\d+)_s(?P<stride>\d+)"
    r"(?:_e(?P<expansion>\d+))?_c(?P<channels>\d+)(?:_se(?P<squeeze>0\.\d+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks of one kind in a row; the first may halve the map and change the channels.

    Attributes:
        operator: ``cn``, ``ds``, ``ir`` or ``er``.
        repeats: blocks.
        kernel: side of the convolution that sees neighbours.
        stride: of the first block.
        expansion: of a block's input channels inside it; 1 where nothing is expanded.
        channels: of the output.
        squeeze: of squeeze-and-excitation, as a share of the block's input channels; 0 for none.
    """

    operator: str
    repeats: int
    kernel: int
    stride: int
    channels: int
    expansion: int = 1
    squeeze: float = 0.0

    @property
    def text(self) -> str:
        """As `Architecture.line` has it."""
        expansion = f"_e{self.expansion}" if self.operator in ("ir", "er") else ""
        squeeze = f"_se{self.squeeze:g}" if self.squeeze else ""
        return (
            f"{self.operator}_r{self.repeats}_k{self.kernel}_s{self.stride}{expansion}"
            f"_c{self.channels}{squeeze}"
        )

    def block(self, number: int, index: int, in_channels: int) -> Block:
        """One of its blocks.

        Args:
            number: of the stage.
            index: of the block within it.
            in_channels: of what it reads.
        """
        return Block(
            stage=number,
            index=index,
            operator=self.operator,
            kernel=self.kernel,
            stride=self.stride if index == 0 else 1,
            in_channels=in_channels,
            hidden=in_channels * self.expansion,
            channels=self.channels,
            squeeze=self.squeeze,
        )


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a network, with all that its cost depends on.

    Attributes:
        stage: index of its stage.
        index: within the stage.
        operator: of the stage, as kernel and squeeze.
        in_channels: of what it reads.
        hidden: channels inside it.
        channels: of what it gives.
        stride: its own.
    """

    stage: int
    index: int
    operator: str
    kernel: int
    stride: int
    in_channels: int
    hidden: int
    channels: int
    squeeze: float

    @property
    def n_squeezed(self) -> int:
        """Channels between the two layers of squeeze-and-excitation; 0 for none."""
        return round(self.in_channels * self.squeeze)

    @property
    def has_shortcut(self) -> bool:
        """Whether its input is added to its output."""
        return has_shortcut(self.operator, self.stride, self.in_channels, self.channels)


def has_shortcut(operator: str, stride: int, in_channels: int, channels: int) -> bool:
    """Whether a block adds its input to its output: where both have one shape."""
    return operator in ("ir", "er") and stride == 1 and in_channels == channels


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network whose weights are parts of another's.

    Attributes:
        base: the backbone that they come from.
        stages: from the stem to the last convolution.
    """

    base: str
    stages: tuple[Stage, ...]

    @property
    def line(self) -> str:
        """As params.yaml's ``train.backbone`` names it, and a file may be called."""
        return "-".join((self.base, *(stage.text for stage in self.stages)))

    @property
    def blocks(self) -> Iterator[Block]:
        """All blocks in order."""
        channels = 3
        for number, stage in enumerate(self.stages):
            for index in range(stage.repeats):
                yield stage.block(number, index, channels)
                channels = stage.channels


def _stages(*rows: tuple[str, int, int, int, int, int]) -> tuple[Stage, ...]:
    names = ("operator", "repeats", "kernel", "stride", "expansion", "channels")
    return tuple(Stage(**dict(zip(names, row, strict=True))) for row in rows)  # type: ignore[arg-type]


#: Sandler et al. 2018, table 2.
MOBILENET_V2 = Architecture(
    "mobilenet_v2",
    _stages(
        ("cn", 1, 3, 2, 1, 32),
        ("ds", 1, 3, 1, 1, 16),
        ("ir", 2, 3, 2, 6, 24),
        ("ir", 3, 3, 2, 6, 32),
        ("ir", 4, 3, 2, 6, 64),
        ("ir", 3, 3, 1, 6, 96),
        ("ir", 3, 3, 2, 6, 160),
        ("ir", 1, 3, 1, 6, 320),
        ("cn", 1, 1, 1, 1, 1280),
    ),
)
#: Networks that others may inherit from.
BASES = MappingProxyType({MOBILENET_V2.base: MOBILENET_V2})


def is_line(name: str) -> bool:
    """Whether a backbone's name is a line of text that describes it."""
    return "-" in name


def parse(line: str) -> Architecture:
    """The architecture that a line describes.

    Raises:
        ConfigError: if it cannot be read, or asks for what its base does not have.
    """
    base, *parts = line.split("-")
    if base not in BASES:
        raise _error(line, f"unknown base {base!r}; expected {' or '.join(BASES)}")
    own = BASES[base]
    if len(parts) != len(own.stages):
        raise _error(
            line,
            f"{len(parts)} stages; expected {len(own.stages)}, as {own.line}",
        )
    stages = tuple(
        _stage(line, part, of_base) for part, of_base in zip(parts, own.stages, strict=True)
    )
    return Architecture(base, stages)


def _stage(line: str, part: str, of_base: Stage) -> Stage:
    match = _PART.fullmatch(part)
    if match is None:
        raise _error(line, f"{part!r} is no stage; expected one like {of_base.text}")
    found = match.groupdict()
    stage = Stage(
        operator=found["operator"],
        repeats=int(found["repeats"]),
        kernel=int(found["kernel"]),
        stride=int(found["stride"]),
        expansion=int(found["expansion"] or 1),
        channels=int(found["channels"]),
        squeeze=float(found["squeeze"] or 0),
    )
    operators = ("ir", "er") if of_base.operator == "ir" else (of_base.operator,)
    kernels = KERNELS if of_base.operator in ("ds", "ir") else (of_base.kernel,)
    squeezes = SQUEEZES if of_base.operator in ("ds", "ir") else (0.0,)
    faults = [
        (stage.operator not in operators, f"one of {', '.join(operators)}"),
        (not 1 <= stage.repeats <= of_base.repeats, f"r1 to r{of_base.repeats}"),
        (stage.kernel not in kernels, " or ".join(f"k{size}" for size in kernels)),
        (stage.stride != of_base.stride, f"s{of_base.stride}"),
        (
            (found["expansion"] is None) != (of_base.operator != "ir")
            or not 1 <= stage.expansion <= of_base.expansion,
            f"e1 to e{of_base.expansion}" if of_base.operator == "ir" else "no e",
        ),
        (
            not MULTIPLE <= stage.channels <= of_base.channels or stage.channels % MULTIPLE != 0,
            f"c{MULTIPLE} to c{of_base.channels} in steps of {MULTIPLE}",
        ),
        (stage.squeeze not in squeezes, " or ".join(f"se{share:g}" for share in squeezes)),
    ]
    if expected := next((words for is_wrong, words in faults if is_wrong), None):
        raise _error(line, f"{part}: expected {expected}, as far as {of_base.text} goes")
    return stage


def _error(line: str, what: str) -> ConfigError:
    shown = line if len(line) <= 60 else f"{line[:57]}…"
    return ConfigError(f"params.yaml: train.backbone: {shown}: {what}.")
