"""Decoder layers by number or by fraction of a model's depth, as a study names them."""

from rtt.errors import UserError


def layer_number(layer: int | float, depth: int) -> int:
    """Return the number of a decoder layer, from 0; a float in (0, 1) is a fraction of the depth, floor(f * depth).

    Raises UserError for a layer that a model of `depth` layers does not have.
    """
    if isinstance(layer, float) and 0 < layer < 1:
        return int(layer * depth + 1e-9)  # 7 / 32 of 32 is 7 whatever the rounding of the fraction
    if isinstance(layer, bool) or layer != int(layer) or not 0 <= layer < depth:
        raise UserError(
            f"layer {layer}: the model has {depth} layers: give a number from 0 to {depth - 1}, "
            "or a fraction of the depth between 0 and 1"
        )
    return int(layer)
